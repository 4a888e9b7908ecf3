"""Training of the demo model that ships with Convscope; for developers, imported by no other package.

The network is ConvNeXt-atto (Liu et al. 2022; the size is timm's) at 128 x 128 pixels over ImageNet-1k's
1,000 classes. It learns from labels and from a teacher, EfficientNet-Lite0, following "Knowledge
distillation: a good teacher is patient and consistent" (Beyer et al. 2022): the teacher's probabilities
belong to the view that the student sees, up to its position, size and lighting; they are softened by a
temperature (Hinton et al. 2015), and views are mixed together with their targets (mixup, Zhang et al. 2018).
Muon (Jordan et al. 2024) optimizes the matrices, AdamW the rest. Forward passes run in bfloat16, the weights
are float32.

Labels alone teach the 200 classes of Tiny-ImageNet and hardly any other. A second stage therefore starts from
the teacher's classifier and features (Chen et al. 2022) and uses many crops of few photos, which suffice for
a teacher to pass on its knowledge (Asano and Saeed 2023, "The augmented image prior").

A run is determined by its seed and settings: each epoch has its own random generator, so a resumed run ends
with the same weights.
"""
