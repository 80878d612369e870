"""How convolutional networks see: the package behind the course.

    core, layers, maps  shared by all methods: backward rules, layers of a model, attribution maps
    transforms          rotation and zoom of images; baseline images
    explain             attribution methods: (model, x, target) → attribution map
    features            functions of a layer: units, receptive fields, patches, neighbours
    synthesis, attacks  images made by optimisation: activation maximisation, adversarial examples
    measure             attribution maps in, numbers out; the registry of methods, the benchmark
    data, nets          images with annotations; the course's networks and torchvision's
    scratch             perceptron, backpropagation and convolution in NumPy
    show                figures
    checks, widgets     the exercises and interactive figures of the notebooks
    notebooks, doctor   run and publish the notebooks; check a machine
    cli                 the command line
    paths, errors       the folder of the data; the error for unusable files and names

Start with `vislib.core` (one mechanism for all explanations) and `vislib.explain.gradients`.
"""
