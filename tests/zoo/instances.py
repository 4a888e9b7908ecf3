"""Networks of the three model libraries, small and with random weights: one or two per family of architectures.

Families differ in how they order and mix positions; width and depth are cut to the minimum that shows that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from workers.torchvision_import import import_library


@dataclass(frozen=True)
class Instance:
    """A network that can be built: `size` is its input's side in pixels; `quick` ones run in the ordinary suite."""

    name: str
    build: Callable[[], nn.Module]
    size: int
    quick: bool = False


QUICK = {
    "transformers hiera",
    "transformers mobilevitv2",
    "transformers swin",
    "transformers focalnet",
    "transformers resnet",
    "transformers perceiver",
    "timm naflexvit_base_patch16_gap",
    "timm crossvit_9_240",
    "timm edgenext_xx_small",
    "timm mixer_s32_224",
    "timm efficientformerv2_s0",
    "timm vit_tiny_patch16_224 with 20 registers",
}

_FOUR = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}

# settings that make each transformers architecture small, and the side of its input
_TRANSFORMERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "beit": ("Beit", {**_VIT, "image_size": 64}, 64),
    "bit": (
        "Bit",
        {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_groups": 4},
        64,
    ),
    "convnext": ("ConvNext", {**_FOUR}, 64),
    "convnextv2": ("ConvNextV2", {**_FOUR}, 64),
    "cvt": ("Cvt", {}, 64),
    "data2vec-vision": ("Data2VecVision", {**_VIT, "image_size": 64}, 64),
    "deit": ("DeiT", {**_VIT, "image_size": 64}, 64),
    "dinov2": ("Dinov2", {**_VIT, "image_size": 64, "patch_size": 8}, 64),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**_VIT, "image_size": 64, "patch_size": 8}, 64),
    "donut-swin": (
        "DonutSwin",
        {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "image_size": 64},
        64,
    ),
    "efficientnet": (
        "EfficientNet",
        {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128, "image_size": 64},
        64,
    ),
    "focalnet": (
        "FocalNet",
        {"embed_dim": 8, "depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32], "image_size": 64},
        64,
    ),
    "hgnet_v2": ("HGNetV2", {}, 64),
    "hiera": ("Hiera", {"embed_dim": 8, "num_heads": [1, 1, 2, 2], "depths": [1, 2, 2, 1]}, 224),
    "ijepa": ("IJepa", {**_VIT, "image_size": 64}, 64),
    "levit": (
        "Levit",
        {
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
            "image_size": 128,
        },
        128,
    ),
    "mobilenet_v1": ("MobileNetV1", {"depth_multiplier": 0.25, "image_size": 64}, 64),
    "mobilenet_v2": ("MobileNetV2", {"depth_multiplier": 0.35, "image_size": 64}, 64),
    "mobilevit": ("MobileViT", {"image_size": 128}, 128),
    "mobilevitv2": ("MobileViTV2", {"width_multiplier": 0.25, "image_size": 256}, 256),
    "poolformer": ("PoolFormer", {**_FOUR}, 64),
    "pvt": ("Pvt", {**_FOUR, "num_attention_heads": [1, 2, 2, 2], "image_size": 64}, 64),
    "pvt_v2": ("PvtV2", {**_FOUR, "num_attention_heads": [1, 2, 2, 2], "image_size": 64}, 64),
    "regnet": ("RegNet", {"embedding_size": 8, **_FOUR, "groups_width": 8}, 64),
    "resnet": ("ResNet", {"embedding_size": 8, **_FOUR}, 64),
    "segformer": ("Segformer", {**_FOUR, "num_attention_heads": [1, 2, 2, 2]}, 64),
    "swiftformer": (
        "SwiftFormer",
        {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "image_size": 64},
        64,
    ),
    "swin": (
        "Swin",
        {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "image_size": 64},
        64,
    ),
    "swinv2": (
        "Swinv2",
        {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4, "image_size": 64},
        64,
    ),
    "textnet": ("TextNet", {}, 64),
    "vit": ("ViT", {**_VIT, "image_size": 64}, 64),
    "vit_msn": ("ViTMSN", {**_VIT, "image_size": 64}, 64),
    "pp_lcnet": ("PPLCNet", {"scale": 0.25}, 64),
}

# settings and, unless it is 224, the side of the input
_TIMM: dict[str, tuple[dict[str, Any], int]] = {
    "beit_base_patch16_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 224),
    "botnet26t_256": ({}, 256),
    "bat_resnext26ts": ({}, 256),
    "halonet26t": ({}, 256),
    "lambda_resnet26t": ({"img_size": 128}, 128),
    "repvgg_a0": ({}, 64),
    "mobileone_s0": ({}, 64),
    "cait_xxs24_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 224),
    "coat_lite_tiny": ({}, 224),
    "convit_tiny": ({"depth": 3}, 224),
    "convmixer_768_32": ({}, 56),
    "convnext_atto": ({"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}, 64),
    "cpubone_b0_bfrobust": ({}, 128),
    "crossvit_9_240": ({"depth": [[1, 2, 0]] * 2}, 240),
    "csatv2": ({}, 512),
    "cs3darknet_focus_s": ({}, 64),
    "cspresnet50": ({}, 64),
    "davit_tiny": ({"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 24, 32], "num_heads": [1, 2, 2, 2]}, 224),
    "deit_tiny_distilled_patch16_224": ({"depth": 2}, 224),
    "deit3_small_patch16_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 224),
    "densenet121": ({"growth_rate": 4, "block_config": (2, 2, 2, 2)}, 64),
    "dla34": ({}, 64),
    "dpn48b": ({}, 64),
    "edgenext_xx_small": ({}, 128),
    "efficientformer_l1": ({}, 224),
    "efficientformerv2_s0": ({}, 224),
    "efficientnet_b0": ({}, 64),
    "tf_efficientnet_lite0": ({}, 64),
    "efficientvim_m1": ({}, 128),
    "efficientvit_b0": ({}, 64),
    "efficientvit_m0": ({}, 224),
    "eva02_tiny_patch14_224": ({"depth": 2}, 224),
    "fasternet_t0": ({}, 64),
    "fastvit_t8": ({}, 64),
    "fastvit_sa12": ({}, 64),
    "focalnet_tiny_srf": ({}, 64),
    "gcvit_xxtiny": ({}, 224),
    "ghostnet_050": ({}, 64),
    "hardcorenas_a": ({}, 64),
    "hgnetv2_b0": ({}, 64),
    "hiera_tiny_224": ({"embed_dim": 16, "stages": (1, 2, 2, 1)}, 224),
    "hieradet_small": ({"embed_dim": 16, "stages": (1, 2, 3, 1), "global_att_blocks": (4,)}, 224),
    "hrnet_w18_small": ({}, 64),
    "iformer_t": ({}, 128),
    "inception_next_atto": ({}, 64),
    "inception_resnet_v2": ({}, 96),
    "inception_v3": ({}, 96),
    "inception_v4": ({}, 96),
    "lcnetv2_small": ({}, 64),
    "levit_128s": ({}, 224),
    "lowformer_b0": ({}, 64),
    "mambaout_femto": ({"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}, 64),
    "coatnet_pico_rw_224": ({}, 224),
    "maxvit_pico_rw_256": ({}, 256),
    "caformer_s18": ({}, 64),
    "convformer_s18": ({}, 64),
    "poolformer_s12": ({}, 64),
    "mixer_s32_224": ({}, 224),
    "gmixer_12_224": ({}, 224),
    "gmlp_ti16_224": ({}, 224),
    "resmlp_12_224": ({}, 224),
    "mobilenetv3_small_050": ({}, 64),
    "mobilenetv4_conv_small_035": ({}, 64),
    "mobilenetv4_hybrid_medium": ({}, 128),
    "mobilevit_xxs": ({}, 128),
    "mobilevitv2_050": ({}, 128),
    "mvitv2_tiny": ({}, 224),
    "naflexvit_base_patch16_gap": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 224),
    "nest_tiny": ({}, 224),
    "nextvit_small": ({}, 64),
    "dm_nfnet_f0": ({}, 64),
    "pit_ti_224": ({"depth": [1, 1, 1]}, 224),
    "pit_ti_distilled_224": ({"depth": [1, 1, 1]}, 224),
    "pvt_v2_b0": ({"depths": (1, 1, 1, 1)}, 64),
    "rdnet_tiny": ({}, 64),
    "regnety_002": ({}, 64),
    "repghostnet_050": ({}, 64),
    "repvit_m0_9": ({}, 64),
    "res2net50_14w_8s": ({}, 64),
    "resnest14d": ({}, 64),
    "resnet18": ({}, 64),
    "seresnet50": ({}, 64),
    "resnetv2_18": ({}, 64),
    "rexnet_100": ({}, 64),
    "selecsls42": ({}, 64),
    "legacy_seresnet18": ({}, 64),
    "sequencer2d_s": ({"layers": [1, 1, 2, 1]}, 224),
    "shvit_s1": ({}, 128),
    "skresnet18": ({}, 64),
    "starnet_s1": ({}, 64),
    "swiftformer_xs": ({}, 224),
    "swin_tiny_patch4_window7_224": (
        {"depths": (2, 2, 2, 2), "embed_dim": 24, "num_heads": (1, 2, 4, 8)},
        224,
    ),
    "swinv2_tiny_window8_256": ({"depths": (2, 2, 2, 2), "embed_dim": 24, "num_heads": (1, 2, 4, 8)}, 256),
    "swinv2_cr_tiny_224": ({"depths": (2, 2, 2, 2), "embed_dim": 24, "num_heads": (1, 2, 4, 8)}, 224),
    "tiny_vit_5m_224": ({"depths": (1, 1, 2, 1)}, 224),
    "tnt_s_patch16_224": ({"depth": 2}, 224),
    "tresnet_m": ({}, 64),
    "twins_pcpvt_small": ({"depths": (1, 1, 1, 1)}, 224),
    "twins_svt_small": ({"depths": (1, 1, 2, 2)}, 224),
    "vgg11_bn": ({}, 64),
    "visformer_tiny": ({"depth": (1, 1, 1)}, 224),
    "vit_tiny_patch16_224": ({"depth": 2}, 224),
    "vit_medium_patch16_gap_240": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 240),
    "vit_small_patch16_224 with global_pool='map'": (
        {"depth": 2, "embed_dim": 48, "num_heads": 3, "global_pool": "map", "class_token": False},
        224,
    ),
    "vit_tiny_patch16_224 with 20 registers": ({"depth": 2, "reg_tokens": 20}, 224),
    "vit_tiny_r_s16_p8_224": ({"depth": 2}, 224),
    "vit_relpos_small_patch16_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 224),
    "samvit_base_patch16_224": (
        {"depth": 2, "embed_dim": 48, "num_heads": 3, "global_attn_indexes": (1,)},
        224,
    ),
    "vitamin_small_224": ({"depth": 2}, 224),
    "volo_d1_224": ({}, 224),
    "ese_vovnet19b_slim": ({}, 64),
    "legacy_xception": ({}, 96),
    "xception41": ({}, 96),
    "xcit_nano_12_p16_224": ({"depth": 2}, 224),
    "aimv2_large_patch14_224": ({"depth": 2, "embed_dim": 48, "num_heads": 3}, 224),
    "qwen3_vit_88m": ({"depth": 2}, 224),
    "gemma4_vit_167m": ({"depth": 2}, 224),
    "deepseek_vit_412m": ({"depth": 2}, 224),
}

_TORCHVISION: dict[str, tuple[dict[str, Any], int]] = {
    "alexnet": ({}, 224),
    "convnext_tiny": ({}, 64),
    "densenet121": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "efficientnet_v2_s": ({}, 64),
    "googlenet": ({"init_weights": False}, 64),
    "inception_v3": ({"init_weights": False}, 96),
    "maxvit_t": ({}, 224),
    "mnasnet0_5": ({}, 64),
    "mobilenet_v2": ({}, 64),
    "mobilenet_v3_small": ({}, 64),
    "regnet_y_400mf": ({}, 64),
    "resnet18": ({}, 64),
    "resnext50_32x4d": ({}, 64),
    "shufflenet_v2_x0_5": ({}, 64),
    "squeezenet1_1": ({}, 64),
    "swin_t": ({}, 64),
    "swin_v2_t": ({}, 64),
    "vgg11": ({}, 64),
    "vit_b_32": ({"image_size": 96}, 96),
}

# Listed by the libraries and not built by the sweep.
SKIPPED = {
    "transformers clip, metaclip_2, siglip, siglip2, shieldgemma2": (
        "vision towers of pairs of networks: the tower is a ViT, as in `transformers vit`"
    ),
    "transformers dinat": "needs the natten package, which is compiled for one GPU",
    "transformers imagegpt": "takes color clusters in place of pixels",
    "transformers timm_wrapper": "is a timm network, see there",
    "timm nasnetalarge, pnasnet5large": "cannot be made small: 85 million parameters, minutes on a CPU",
    "timm mobilenetv5_300m": "cannot be made small: 300 million parameters, minutes on a CPU",
}


def instances() -> list[Instance]:
    """Return all instances, by library."""
    found = [
        Instance(f"transformers {kind}", _transformers(*entry[:2]), entry[2])
        for kind, entry in _TRANSFORMERS.items()
    ]
    found.append(Instance("transformers perceiver", _perceiver, 64))
    found += [
        Instance(f"timm {name}", _timm(name.partition(" with ")[0], settings), size)
        for name, (settings, size) in _TIMM.items()
    ]
    found += [
        Instance(f"torchvision {name}", _torchvision(name, settings), size)
        for name, (settings, size) in _TORCHVISION.items()
    ]
    return [Instance(one.name, one.build, one.size, one.name in QUICK) for one in found]


def _transformers(kind: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        library = import_library("transformers")
        config = getattr(library, f"{kind}Config")(num_labels=10, **settings)
        network: nn.Module = getattr(library, f"{kind}ForImageClassification")(config)
        return network

    return build


def _perceiver() -> nn.Module:
    library = import_library("transformers")
    config = library.PerceiverConfig(
        num_latents=16, d_latents=32, num_blocks=1, num_self_attends_per_block=1, num_self_attention_heads=2,
        num_cross_attention_heads=1, image_size=64, num_labels=10,
    )  # fmt: skip
    network: nn.Module = library.PerceiverForImageClassificationConvProcessing(config)
    return network


def _timm(name: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        network: nn.Module = import_library("timm").create_model(name, num_classes=10, **settings)
        return network

    return build


def _torchvision(name: str, settings: dict[str, Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        models = import_library("torchvision.models")
        network: nn.Module = getattr(models, name)(weights=None, num_classes=10, **settings)
        return network

    return build
