"""What is asked and answered over HTTP."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_TEXTS = 64  # of a request
Text = Annotated[str, StringConstraints(pattern=r"\S", max_length=100_000)]


class Question(BaseModel):
    """Texts to label; for a task on pairs, also the second text of each."""

    model_config = ConfigDict(extra="forbid")
    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)
    pairs: list[Text] | None = None

    @model_validator(mode="after")
    def one_pair_a_text(self) -> Self:
        """Require as many second texts as first ones."""
        if self.pairs is not None and len(self.pairs) != len(self.texts):
            raise ValueError(f"pairs must have as many entries as texts: {len(self.pairs)} against {len(self.texts)}")
        return self


class Texts(BaseModel):
    """Texts to encode."""

    model_config = ConfigDict(extra="forbid")
    texts: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)


class Vectors(BaseModel):
    """A vector for each text, in their order, and whether its end was cut."""

    vectors: list[list[float]]
    truncated: list[bool]


class Inputs(BaseModel):
    """A request as OpenAI's clients send it to /v1/embeddings; what is not listed is ignored, the model's name too."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)


class Span(BaseModel):
    """A run of words that a tagger marks, or a single word of one whose tags mark no spans."""

    label: str
    start: int  # characters of the text
    end: int
    text: str
    score: float  # mean probability of its words' tags


class Prediction(BaseModel):
    """The model's answer for a text: a label, or several, with all probabilities; a score; spans; or why not.

    To a question it is the answer, a part of the second text by its characters, or "" for none.
    """

    label: str | None = None
    labels: list[str] | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    score: float | None = None
    spans: list[Span] | None = None
    answer: str | None = None
    start: int | None = None
    end: int | None = None
    error: str | None = None
    truncated: bool | None = None  # the text was longer than the model's limit, and its end was cut


class Answer(BaseModel):
    """A prediction for each text, in their order."""

    predictions: list[Prediction]


class Query(BaseModel):
    """A query, and the candidates to rank for it."""

    model_config = ConfigDict(extra="forbid")
    query: Text
    candidates: list[Text] = Field(min_length=1, max_length=MOST_TEXTS)


class Ranked(BaseModel):
    """A candidate with its score, and where it stood in the question, counted from 0; or why it has no score."""

    index: int
    candidate: str
    score: float | None = None
    error: str | None = None
    truncated: bool | None = None  # query and candidate were longer than the model's limit


class Ranking(BaseModel):
    """The candidates, best first; those without a score come last."""

    candidates: list[Ranked]
