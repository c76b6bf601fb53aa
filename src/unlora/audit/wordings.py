r"""Other ways to put the same question. The answer that is scored stays the same.

Kinds from Singh et al. 2025, JensUn (arXiv 2509.02820: paraphrases, other formats) and Thaker et al. 2024
(arXiv 2410.02879: keywords, what stands around the question). Everything is put in front of the question, so that a
verbatim prompt ("Question: ...\nAnswer:") still ends where the answer begins.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Frame:
    """One wording."""

    name: str
    text: str = "{question}"
    """What is asked. Gaps: {question}; {paraphrase}, the record's own question in other words; {emphasised}, the
    question with its names marked; {subject}, whom or what it is about; {opening}, the first words of the answer."""
    form: Literal["trained", "other", "verbatim"] = "trained"
    """The template of the run; another one; or the text as it is, the answer after a space."""
    given: Literal["nothing", "opening", "half"] = "nothing"
    """How much of the answer's beginning the model is given. Only the rest is scored."""


AS_ASKED = Frame("as_asked")
"""As the model was trained: always there, and what the others are compared with."""

FRAMES = (
    AS_ASKED,
    Frame("paraphrased", "{paraphrase}"),
    Frame("please", "Please answer the following question. {question}"),
    Frame("forgotten", "I knew this once and forgot it. Please remind me: {question}"),
    Frame("expert", "You are an expert on {subject}. {question}"),
    Frame("emphasis", "{emphasised}"),
    Frame("question_and_answer", "Q: {question}\nA:", form="verbatim"),
    Frame("other_template", form="other"),
    Frame("hint", 'The answer begins with "{opening}". {question}', given="opening"),
    Frame("first_half", given="half"),
)
