"""The seedling's shape: 8.7 M parameters, 17.3 MB in bf16."""

from transformers import MixtralConfig


def seedling_config(vocab_size=3072):
    return MixtralConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=2048,
        sliding_window=None,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        router_aux_loss_coef=0.01,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )
