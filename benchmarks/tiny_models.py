"""Tiny models made here, in the folders that the real ones come in: the same loading code, no download."""

from pathlib import Path
from typing import Any

import torch

from engine.networks.extras import import_extra

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_vlm(folder: Path, seed: int = 0) -> Path:
    """A Qwen2.5-VL of 175,000 random weights, whose tokens are bytes; with its processor, in a folder."""
    transformers = import_extra("transformers", "vlm")
    torch.manual_seed(seed)
    processor = tiny_processor(transformers)
    special = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    settings = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer), "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
            "bos_token_id": special["<|endoftext|>"], "eos_token_id": special["<|im_end|>"],
            "pad_token_id": special["<|endoftext|>"],
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1],
        },
        image_token_id=special["<|image_pad|>"], video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"], vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    save(transformers.Qwen2_5_VLForConditionalGeneration(settings), processor, folder)
    return folder


def tiny_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen3-VL of random weights, with the same processor, in a folder."""
    transformers = import_extra("transformers", "vlm")
    torch.manual_seed(seed)
    tokenizer = tiny_processor(transformers).tokenizer
    pictures = transformers.Qwen2VLImageProcessor(
        size={"shortest_edge": 32 * 32, "longest_edge": 128 * 128}, patch_size=16
    )
    processor = transformers.Qwen3VLProcessor(
        image_processor=pictures, tokenizer=tokenizer, video_processor=transformers.Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    )  # fmt: skip
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    settings = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3], "mrope_interleaved": True,
            },
            "bos_token_id": special["<|endoftext|>"], "eos_token_id": special["<|im_end|>"],
            "pad_token_id": special["<|endoftext|>"],
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64,
            "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
        },
        image_token_id=special["<|image_pad|>"], video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"], vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip
    save(transformers.Qwen3VLForConditionalGeneration(settings), processor, folder)
    return folder


GEMMA = (
    "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<boi>", "<eoi>", "<image_soft_token>",
)  # fmt: skip
GEMMA_TEMPLATE = (
    "{% for message in messages %}<start_of_turn>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<boi>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def tiny_gemma3(folder: Path, seed: int = 0) -> Path:
    """A Gemma 3, which MedGemma is one of, of random weights, with its processor, in a folder."""
    transformers = import_extra("transformers", "vlm")
    torch.manual_seed(seed)
    named = {"image_token": "<image_soft_token>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokens(), pad_token="<pad>", eos_token="<eos>", bos_token="<bos>",
        additional_special_tokens=list(GEMMA), extra_special_tokens=named,
    )  # fmt: skip
    pictures = transformers.Gemma3ImageProcessor(size={"height": 56, "width": 56})
    processor = transformers.Gemma3Processor(
        image_processor=pictures, tokenizer=tokenizer, chat_template=GEMMA_TEMPLATE, image_seq_length=4
    )
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in GEMMA}
    settings = transformers.Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 2048,
            "sliding_window": 512, "pad_token_id": special["<pad>"], "eos_token_id": special["<eos>"],
            "bos_token_id": special["<bos>"],
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 56, "patch_size": 14,
        },
        mm_tokens_per_image=4, boi_token_index=special["<boi>"], eoi_token_index=special["<eoi>"],
        image_token_index=special["<image_soft_token>"],
    )  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(settings)
    # begins with zeros: no film would reach the words
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    save(model, processor, folder)
    return folder


def tiny_processor(transformers: Any) -> Any:
    """A processor whose tokens are bytes."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokens(),
        pad_token=SPECIAL[0],
        eos_token=SPECIAL[2],
        additional_special_tokens=list(SPECIAL),
    )
    pictures = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112})
    return transformers.Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=tokenizer, video_processor=transformers.Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    )  # fmt: skip


def byte_tokens() -> Any:
    """A tokenizer whose tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a model and its processor as their own library does."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def tiny_sam2(folder: Path, seed: int = 0) -> Path:
    """A SAM 2 of random weights for pictures of 128 pixels a side, with its processor, in a folder."""
    transformers = import_extra("transformers", "sam2")
    torch.manual_seed(seed)
    settings = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
                "image_size": [128, 128], "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [4, 4, 4, 4],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32,
        },
    )  # fmt: skip
    pictures = transformers.Sam2ImageProcessor(
        size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32}
    )
    model, processor = transformers.Sam2Model(settings), transformers.Sam2Processor(pictures, target_size=128)
    save(model, processor, folder)
    return folder
