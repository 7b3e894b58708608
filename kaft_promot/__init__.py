"""kaft-promot: fine-tune language models that trust the right context and keep what they could do.

Two methods and the measurements that prove them: KAFT (knowledge aware fine-tuning, Li et al.,
Findings of ACL 2023) and ProMoT (prompt tuning, then model tuning, Wang et al., ICLR 2024).
The way of the data goes through the rooms in this order: `knowledge`, `feeding`, `models`,
`training`, `decoding`, `evaluation`; `interop`, `scale` and `cli` serve them.
"""

__version__ = "0.1.0"
