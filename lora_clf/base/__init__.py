"""The shared base: from a name to its files, a frozen backbone, a tokenizer, pooling and heads.

The only room that knows the oddities of transformers' architectures.
"""
