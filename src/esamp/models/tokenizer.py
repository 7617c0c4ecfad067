"""The embedded model's tokenizer: one token per integer, operator, word and line break."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = ("\n", "Numbers", "target", "try", "left", "not", "yes", "too", "small", "far", "Answer:")
SYMBOLS = ("=", "+", "-", "*", "/", "(", ")")
CHAT_TEMPLATE = "{{ bos_token }}{{ messages[-1]['content'] }}"

# Other spellings of the words in the traces: "numbers: 3, 5, 8; Target = 24", "3 × 5 ÷ 8 − 1".
SPELLINGS = (
    (r"(?i)\bnumbers?\b\s*[:=]?", " Numbers "),
    (r"(?i)\btarget\b\s*[:=]?", " target "),
    (r"(?i)\banswer\s*:", " Answer: "),
    (r"[×∙·]", "*"),
    (r"÷", "/"),
    (r"[−–]", "-"),
    (r"[,;.\[\]?]", " "),
)


def vocabulary(largest: int) -> dict[str, int]:
    """Token -> id: special tokens, words, symbols, then the integers 0..largest."""
    tokens = (*SPECIAL, *WORDS, *SYMBOLS, *map(str, range(largest + 1)))
    return {token: index for index, token in enumerate(tokens)}


def build_tokenizer(largest: int, max_length: int) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that begins every text with <bos>; unknown words become <unk>."""
    vocab = vocabulary(largest)
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(old), new) for old, new in SPELLINGS])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n|Answer:|\d+|[^\W\d]+|[^\s\w]"), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),  # joins the tokens with spaces
            decoders.Fuse(),
            decoders.Replace(Regex(r" ?\n ?"), "\n"),
            decoders.Replace("( ", "("),
            decoders.Replace(" )", ")"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
