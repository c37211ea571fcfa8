"""Tiny vision models of transformers and timm: `NETWORKS[name] = (make a module, make its example inputs)`."""

import tests.zoo.operators  # noqa: F401  # isort: skip  before what imports torchvision

import timm
import torch
import transformers as T
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.ghostnet import GhostNet
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import MlpMixer
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegNetCfg
from torch import Tensor, nn

T.logging.set_verbosity_error()
VIT = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=8)
TEXT = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, vocab_size=50)


def images(size: int) -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)),)


def made(name: str, size: int = 32, **arguments: object) -> tuple:
    """A model of timm without its weights."""
    return lambda: timm.create_model(name, pretrained=False, num_classes=5, **arguments), lambda: images(size)


def clip() -> nn.Module:
    text = dict(**TEXT, max_position_embeddings=16, projection_dim=16, bos_token_id=0, eos_token_id=49, pad_token_id=1)
    return T.CLIPModel(T.CLIPConfig(text_config=text, vision_config=dict(**VIT, projection_dim=16), projection_dim=16))


def detr() -> nn.Module:
    backbone = T.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"])
    sizes = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4)
    hidden = dict(encoder_ffn_dim=48, decoder_ffn_dim=48, num_queries=5, num_labels=4)
    plain = dict(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone)
    return T.DetrForObjectDetection(T.DetrConfig(**sizes, **hidden, **plain))


def segformer() -> nn.Module:
    sizes = dict(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[3, 3], strides=[2, 2])
    more = dict(num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=3)
    return T.SegformerForSemanticSegmentation(T.SegformerConfig(**sizes, **more))


def swin() -> nn.Module:
    sizes = dict(image_size=16, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=2, mlp_ratio=2.0)
    return T.SwinForImageClassification(T.SwinConfig(**sizes, num_labels=3))


def mobilenetv3() -> nn.Module:
    blocks = [["ds_r1_k3_s2_e1_c8_se0.25_nre"], ["ir_r2_k3_s2_e3_c16_nre"], ["ir_r1_k5_s1_e3_c24_se0.25"], ["cn_r1_k1_s1_c48"]]
    return MobileNetV3(decode_arch_def(blocks), num_classes=5, num_features=64, stem_size=8)


def regnet() -> nn.Module:
    return RegNet(RegNetCfg(depth=5, w0=16, wa=16.0, wm=1.8, group_size=8, se_ratio=0.25), num_classes=5)


def ghostnet() -> nn.Module:
    blocks = [[[3, 16, 8, 0, 1]], [[3, 24, 12, 0.25, 2]], [[3, 32, 12, 0, 1]]]
    return GhostNet(cfgs=blocks, num_classes=5)


def text_and_image() -> tuple[Tensor, ...]:
    return torch.tensor([[0, 3, 4, 49], [0, 7, 8, 49]]), *images(16)


NETWORKS = {
    "vit": (lambda: T.ViTForImageClassification(T.ViTConfig(**VIT, num_labels=3)), lambda: images(16)),
    "deit": (lambda: T.DeiTForImageClassification(T.DeiTConfig(**VIT, num_labels=3)), lambda: images(16)),
    "dinov2": (lambda: T.Dinov2ForImageClassification(T.Dinov2Config(**VIT, num_labels=3)), lambda: images(16)),
    "swin": (swin, lambda: images(16)),
    "segformer": (segformer, lambda: images(32)),
    "convnext": (lambda: T.ConvNextForImageClassification(
        T.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)), lambda: images(32)),
    "resnet_hf": (lambda: T.ResNetForImageClassification(
        T.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_labels=3)), lambda: images(32)),
    "clip": (clip, text_and_image),
    "detr": (detr, lambda: images(32)),
    "timm_resnet": made("test_resnet"),
    "timm_byobnet": made("test_byobnet"),
    "timm_convnext": made("test_convnext"),
    "timm_efficientnet": made("test_efficientnet"),
    "timm_efficientnet_gn": made("test_efficientnet_gn"),
    "timm_nfnet": made("test_nfnet"),
    "timm_mambaout": made("test_mambaout"),
    "timm_vit": made("test_vit", 32, img_size=32, embed_dim=32, num_heads=2, depth=1),
    "timm_mobilenetv3": (mobilenetv3, lambda: images(32)),
    "timm_regnet": (regnet, lambda: images(32)),
    "timm_densenet": made("densenet121", 32, growth_rate=8, block_config=(2, 2)),
    "timm_mixer": (
        lambda: MlpMixer(num_classes=5, img_size=32, patch_size=8, num_blocks=1, embed_dim=32), lambda: images(32)),
    "timm_poolformer": (
        lambda: MetaFormer(num_classes=5, depths=(1, 1), dims=(16, 32), downsample_norm=None), lambda: images(32)),
    "timm_ghostnet": (ghostnet, lambda: images(32)),
}
