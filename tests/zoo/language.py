"""Tiny language and audio models of transformers: `NETWORKS[name] = (make a module, make its example inputs)`."""

import torch
import transformers as T
from torch import Tensor, nn

import tests.zoo.operators  # noqa: F401  before what imports torchvision

T.logging.set_verbosity_error()
VOCABULARY, WIDTH = 50, 32
NAMED = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, vocab_size=VOCABULARY)
TOKENS = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)
DECODER = dict(**NAMED, **TOKENS, max_position_embeddings=32, use_cache=False)
GROUPED = dict(**DECODER, num_key_value_heads=2)


def tokens() -> tuple[Tensor, ...]:
    return (torch.arange(14).view(2, 7) * 3 % VOCABULARY,)


def two_sequences() -> tuple[Tensor | None, ...]:
    """Input, its mask, and what the decoder has written."""
    return (*tokens(), torch.ones(2, 7, dtype=torch.long), torch.arange(10).view(2, 5) % VOCABULARY)


def sound() -> tuple[Tensor, ...]:
    return (torch.randn(2, 400, generator=torch.Generator().manual_seed(1)),)


def spectrum() -> tuple[Tensor, ...]:
    """A log-mel spectrogram, and what the decoder has written."""
    return torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1)), torch.ones(2, 32), torch.arange(10).view(2, 5)


def t5(**other: object) -> T.T5Config:
    sizes = dict(d_model=WIDTH, d_kv=8, d_ff=48, num_layers=1, num_heads=4, vocab_size=VOCABULARY)
    return T.T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, use_cache=False, **other)


def wav2vec2() -> nn.Module:
    sizes = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, classifier_proj_size=8)
    convolutions = dict(conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(8, 3), num_conv_pos_embeddings=4)
    config = T.Wav2Vec2Config(**sizes, **convolutions, num_conv_pos_embedding_groups=2, apply_spec_augment=False)
    return T.Wav2Vec2ForSequenceClassification(config)


def whisper() -> nn.Module:
    sizes = dict(d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4)
    hidden = dict(encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=VOCABULARY, num_mel_bins=16)
    config = T.WhisperConfig(**sizes, **hidden, **TOKENS, max_source_positions=16, max_target_positions=16, use_cache=False)
    return T.WhisperForConditionalGeneration(config)


def bart() -> nn.Module:
    sizes = dict(d_model=WIDTH, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4)
    hidden = dict(encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=VOCABULARY, max_position_embeddings=32)
    return T.BartForConditionalGeneration(T.BartConfig(**sizes, **hidden, **TOKENS, use_cache=False))


def deberta() -> nn.Module:
    config = T.DebertaV2Config(**NAMED, max_position_embeddings=32, relative_attention=True, pos_att_type=["p2c", "c2p"])
    return T.DebertaV2ForSequenceClassification(config)


def distilbert() -> nn.Module:
    sizes = dict(dim=WIDTH, n_layers=1, n_heads=4, hidden_dim=48, vocab_size=VOCABULARY, max_position_embeddings=32)
    return T.DistilBertForSequenceClassification(T.DistilBertConfig(**sizes))


def xlnet() -> nn.Module:
    config = T.XLNetConfig(d_model=WIDTH, n_layer=1, n_head=4, d_inner=48, vocab_size=VOCABULARY, use_mems_eval=False)
    return T.XLNetForSequenceClassification(config)


def gpt2() -> nn.Module:
    sizes = dict(n_embd=WIDTH, n_layer=1, n_head=4, vocab_size=VOCABULARY, n_positions=32)
    return T.GPT2LMHeadModel(T.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, use_cache=False))


def gpt_neox() -> nn.Module:
    return T.GPTNeoXForCausalLM(T.GPTNeoXConfig(**DECODER))


def mixtral() -> nn.Module:
    return T.MixtralForCausalLM(T.MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2))


def mamba() -> nn.Module:
    config = T.MambaConfig(hidden_size=WIDTH, num_hidden_layers=1, vocab_size=VOCABULARY, state_size=4, use_cache=False)
    return T.MambaForCausalLM(config)


def bloom() -> nn.Module:
    config = T.BloomConfig(hidden_size=WIDTH, n_layer=1, n_head=4, vocab_size=VOCABULARY, use_cache=False)
    return T.BloomForCausalLM(config)


NETWORKS = {
    "bert": (lambda: T.BertForSequenceClassification(T.BertConfig(**NAMED, max_position_embeddings=32)), tokens),
    "roberta": (lambda: T.RobertaForMaskedLM(T.RobertaConfig(**NAMED, **TOKENS, max_position_embeddings=32)), tokens),
    "distilbert": (distilbert, tokens),
    "albert": (lambda: T.AlbertForSequenceClassification(
        T.AlbertConfig(**NAMED, embedding_size=16, max_position_embeddings=32)), tokens),
    "electra": (lambda: T.ElectraForSequenceClassification(
        T.ElectraConfig(**NAMED, embedding_size=16, max_position_embeddings=32)), tokens),
    "deberta_v2": (deberta, tokens),
    "xlnet": (xlnet, tokens),
    "gpt2": (gpt2, tokens),
    "gpt_neox": (gpt_neox, tokens),
    "bloom": (bloom, tokens),
    "opt": (lambda: T.OPTForCausalLM(T.OPTConfig(**TOKENS, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4,
        ffn_dim=48, vocab_size=VOCABULARY, word_embed_proj_dim=WIDTH, max_position_embeddings=32, use_cache=False)), tokens),
    "llama": (lambda: T.LlamaForCausalLM(T.LlamaConfig(**GROUPED)), tokens),
    "mistral": (lambda: T.MistralForCausalLM(T.MistralConfig(**GROUPED, sliding_window=None)), tokens),
    "qwen2": (lambda: T.Qwen2ForCausalLM(T.Qwen2Config(**GROUPED)), tokens),
    "qwen3": (lambda: T.Qwen3ForCausalLM(T.Qwen3Config(**GROUPED, head_dim=8)), tokens),
    "gemma": (lambda: T.GemmaForCausalLM(T.GemmaConfig(**GROUPED, head_dim=8)), tokens),
    "phi": (lambda: T.PhiForCausalLM(T.PhiConfig(**DECODER)), tokens),
    "mixtral": (mixtral, tokens),
    "mamba": (mamba, tokens),
    "t5": (lambda: T.T5ForConditionalGeneration(t5()), two_sequences),
    "t5_encoder": (lambda: T.T5EncoderModel(t5()), tokens),
    "bart": (bart, two_sequences),
    "whisper": (whisper, lambda: (spectrum()[0], None, spectrum()[2])),
    "wav2vec2": (wav2vec2, sound),
}
