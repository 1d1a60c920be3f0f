"""Small explorers for JupyterLab."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from io import BytesIO

import numpy as np
import pandas as pd
from IPython.display import HTML
from ipywidgets import HTML as Page
from ipywidgets import BoundedIntText, Dropdown, FloatSlider, HBox, Text, VBox
from PIL import Image

from rec_utils.data import Dataset
from rec_utils.errors import UserError
from rec_utils.knowledge import movies
from rec_utils.rerank_lists import Lists
from rec_utils.samples import CTRTask

#: Rows of the ranking that are shown.
TOP = 10

#: Works that a search shows at most.
HITS = 30


class UserExplorer:
    """One user at a time: prompt history, knowledge text, and the later movies as two models rank them.

    Args:
        dataset: gives the titles.
        task: samples and ratings.
        probability: arm -> [N] predictions, the arm before and the arm after.
    """

    def __init__(self, dataset: Dataset, task: CTRTask, probability: Mapping[str, np.ndarray]) -> None:
        self.task = task
        # user ids mean nothing in another data set
        self.answers = movies.user_answers() if dataset.name == movies.USERS_OF else {}
        self.titles = dataset.items.set_index("item_id").loc[task.item_ids, "title"].to_numpy()
        self.probability = probability
        self.user_ids = task.user_ids[np.unique(task.samples.user_row.numpy())]

    def history(self, user_id: int) -> pd.DataFrame:
        """The prompt history of a user: title and rating, in order."""
        prompts = self.task.prompts[self.task.prompts["user_row"] == self._row(user_id)]
        return pd.DataFrame(
            {"title": self.titles[prompts["item_row"]], "rating": prompts["rating"].to_numpy()}
        )

    def ranking(self, user_id: int) -> pd.DataFrame:
        """The user's later movies, best first by the last arm, with the rank each arm gives."""
        samples = self.task.samples
        rows = np.flatnonzero(samples.user_row.numpy() == self._row(user_id))
        table = pd.DataFrame({"title": self.titles[samples.item_row.numpy()[rows]]})
        table["liked"] = np.where(samples.label.numpy()[rows] > 0, "yes", "no")
        for arm, probability in self.probability.items():
            table[f"rank: {arm}"] = (-probability[rows]).argsort(kind="stable").argsort(kind="stable") + 1
        return table.sort_values(table.columns[-1]).reset_index(drop=True)

    def show(self, user_id: int) -> HTML:
        """Everything about one user as HTML."""
        return HTML(self._html(user_id))

    def widget(self) -> VBox:
        """A list of users; choosing one shows it."""
        choice = Dropdown(options=[int(user_id) for user_id in self.user_ids], description="user")
        page = Page(self._html(choice.value))
        choice.observe(lambda change: setattr(page, "value", self._html(change["new"])), names="value")
        return VBox([choice, page])

    def _row(self, user_id: int) -> int:
        row = int(np.searchsorted(self.task.user_ids, user_id))
        if row >= len(self.task.user_ids) or self.task.user_ids[row] != user_id:
            raise UserError(f"there is no user {user_id} in the samples")
        return row

    def _html(self, user_id: int) -> str:
        answer = self.answers.get(user_id)
        text = answer.text if answer else "no text about this user"
        history, ranking = self.history(user_id), self.ranking(user_id)
        as_html = {"index": False, "border": 0, "escape": True}
        return (
            f"<b>Read by the language model</b> (first {min(TOP, len(history))} of {len(history)})"
            f"{history.head(TOP).to_html(**as_html)}"
            f"<p><b>Inferred</b><br>{escape(text)}</p>"
            f"<b>Rated later</b> (top {min(TOP, len(ranking))} of {len(ranking)})"
            f"{ranking.head(TOP).to_html(**as_html)}"
        )


class TimelineExplorer:
    """One user at a time: what was said about one period of the history after the other.

    Args:
        table: user_id and one row a period in order; its other columns are shown as they are.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        if "user_id" not in table:
            raise UserError(f"a timeline needs a column user_id; there are {', '.join(map(str, table))}")
        self.periods = {int(user_id): rows for user_id, rows in table.groupby("user_id", sort=True)}

    def show(self, user_id: int) -> HTML:
        """A user's periods as HTML."""
        return HTML(self._html(user_id))

    def widget(self) -> VBox:
        """A list of users; choosing one shows the periods."""
        choice = Dropdown(options=list(self.periods), description="user")
        page = Page(self._html(choice.value))
        choice.observe(lambda change: setattr(page, "value", self._html(change["new"])), names="value")
        return VBox([choice, page])

    def _html(self, user_id: int) -> str:
        if user_id not in self.periods:
            raise UserError(f"there is no user {user_id} in the timeline")
        table = self.periods[user_id].drop(columns="user_id")
        return f"<b>User {user_id}</b>{table.to_html(index=False, border=0, escape=True, na_rep='')}"


class WorkExplorer:
    """Search in a list of works: by words, and by what they are.

    Args:
        works: columns name, title and link, and others that are shown as they are.
        filters: the columns among them that have a list to choose from.
    """

    def __init__(self, works: pd.DataFrame, filters: Sequence[str]) -> None:
        for column in ("name", "title", "link", *filters):
            if column not in works:
                raise UserError(f"works need a column {column}; there are {', '.join(map(str, works))}")
        self.works = works.reset_index(drop=True).astype(object).fillna("").astype(str)
        self.choices = {column: sorted(set(self.works[column]) - {""}) for column in filters}
        self._text = self.works.agg(" ".join, axis=1).str.casefold()

    def find(self, text: str = "", **chosen: str) -> pd.DataFrame:
        """The works with every word of `text` somewhere in their cells, and each chosen value of a filter."""
        hit = pd.Series(True, self.works.index)
        for word in text.casefold().split():
            hit &= self._text.str.contains(word, regex=False)
        for column, value in chosen.items():
            if column not in self.choices:
                raise UserError(f"there is no filter {column!r}; there are {', '.join(self.choices)}")
            if value not in self.choices[column]:
                raise UserError(
                    f"no work has {column} {value!r}; there are {', '.join(self.choices[column])}"
                )
            hit &= self.works[column] == value
        return self.works[hit]

    def show(self, text: str = "", **chosen: str) -> HTML:
        """The hits as HTML, each with its link."""
        return HTML(self._html(text, chosen))

    def widget(self) -> VBox:
        """A search box and the lists to choose from; each change searches anew."""
        box = Text(placeholder="words", description="search")
        lists = {
            column: Dropdown(options=[("all", ""), *((value, value) for value in values)], description=column)
            for column, values in self.choices.items()
        }
        page = Page(self._html("", {}))

        def search(_: object) -> None:
            chosen = {column: each.value for column, each in lists.items() if each.value}
            page.value = self._html(box.value, chosen)

        for control in (box, *lists.values()):
            control.observe(search, names="value")
        return VBox([HBox([box, *lists.values()], layout={"flex_flow": "row wrap"}), page])

    def _html(self, text: str, chosen: Mapping[str, str]) -> str:
        hits = self.find(text, **chosen)
        shown = hits.head(HITS)
        table = shown.drop(columns=["name", "link"]).map(escape).rename(columns=escape)
        table.insert(0, "name", [_link(*cells) for cells in zip(shown["name"], shown["link"], strict=True)])
        first = f", the first {HITS}" if len(hits) > HITS else ""
        return (
            f"<b>{len(hits)} of {len(self.works)} works{first}</b>"
            f"{table.to_html(index=False, border=0, escape=False)}"
        )


def _link(name: str, address: str) -> str:
    """A name that leads to its address, if that is one of the web."""
    if not address.startswith(("https://", "http://")):
        return escape(name)
    return f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(name)}</a>'


class ListExplorer:
    """One list at a time: what its candidates are, and where each model puts them.

    Args:
        dataset: gives the titles.
        task: the items.
        lists: N lists of n candidates.
        scores: arm -> [N, n]; the table is ordered by the last arm.
    """

    def __init__(
        self, dataset: Dataset, task: CTRTask, lists: Lists, scores: Mapping[str, np.ndarray]
    ) -> None:
        self.task, self.lists, self.scores = task, lists, scores
        self.titles = dataset.items.set_index("item_id").loc[task.item_ids, "title"].to_numpy()

    def table(self, number: int) -> pd.DataFrame:
        """The candidates of a list, best first by the last arm, with the rank each arm gives."""
        if not 0 <= number < len(self.lists):
            raise UserError(f"list {number} is not one of 0 to {len(self.lists) - 1}")
        item, liked, rated = (
            getattr(self.lists, name)[number].numpy() for name in ("item_row", "label", "rated")
        )
        kind = np.where(liked > 0, "liked", np.where(rated, "rated, not liked", "random"))
        table = pd.DataFrame({"title": self.titles[item], "in the list as": kind})
        for arm, score in self.scores.items():
            table[f"rank: {arm}"] = (-score[number]).argsort(kind="stable").argsort(kind="stable") + 1
        return table.sort_values(table.columns[-1]).reset_index(drop=True)

    def show(self, number: int) -> HTML:
        """A list as HTML."""
        return HTML(self._html(number))

    def widget(self) -> VBox:
        """A number to choose a list by; choosing one shows it."""
        choice = BoundedIntText(value=0, min=0, max=len(self.lists) - 1, description="list")
        page = Page(self._html(choice.value))
        choice.observe(lambda change: setattr(page, "value", self._html(change["new"])), names="value")
        return VBox([choice, page])

    def _html(self, number: int) -> str:
        user = int(self.task.user_ids[self.lists.user_row[number]])
        table = self.table(number).to_html(index=False, border=0, escape=True)
        return f"<b>List {number}, user {user}</b>{table}"


class DecodingExplorer:
    """One text at a time, as speculative decoding wrote it: which words did a draft bring?

    Args:
        prompts: what the texts answer.
        passes: from the number of a prompt to what each pass wrote, as a list of tokens; the last token of a
            pass is the model's own.
    """

    def __init__(self, prompts: Sequence[str], passes: Callable[[int], Sequence[Sequence[str]]]) -> None:
        self.prompts, self.passes = prompts, passes

    def show(self, number: int) -> HTML:
        """A text as HTML: a bar before each pass, drafted tokens on green."""
        return HTML(self._html(number))

    def widget(self) -> VBox:
        """A list of prompts; choosing one writes its text."""
        options = [(prompt.strip()[:60], number) for number, prompt in enumerate(self.prompts)]
        choice = Dropdown(options=options, description="prompt")
        page = Page(self._html(choice.value))
        choice.observe(lambda change: setattr(page, "value", self._html(change["new"])), names="value")
        return VBox([choice, page])

    def _html(self, number: int) -> str:
        if not 0 <= number < len(self.prompts):
            raise UserError(f"prompt {number} is not one of 0 to {len(self.prompts) - 1}")
        parts, passes = [], self.passes(number)
        for *drafted, own in passes:
            green = f'<span style="background:#cde8d0;color:#000">{escape("".join(drafted))}</span>'
            parts.append(f'<span style="color:#999">|</span>{green}{escape(own)}')
        n = sum(map(len, passes))
        return (
            f"<b>{escape(self.prompts[number].strip())}</b><p>{''.join(parts)}"
            f"<p>{n} tokens in {len(passes)} passes"
        )


class GuidanceExplorer:
    """Pictures as guided generation draws them: what does each strength do?

    Args:
        draw: (number, name=strength for each name) -> grey pictures [n, height, width] from -1 to 1.
        n: how many numbers there are.
        strength: name -> where its slider begins.
    """

    def __init__(self, draw: Callable[..., np.ndarray], n: int, strength: Mapping[str, float]) -> None:
        self.draw, self.n, self.strength = draw, n, dict(strength)

    def show(self, number: int, **strength: float) -> HTML:
        """The pictures of a number as HTML."""
        return HTML(self._html(number, self.strength | strength))

    def widget(self) -> VBox:
        """A number and a slider for each strength; each change draws anew."""
        choice = BoundedIntText(value=0, min=0, max=self.n - 1, description="number")
        sliders = {
            name: FloatSlider(value=value, min=0, max=10, step=0.5, description=name, continuous_update=False)
            for name, value in self.strength.items()
        }
        page = Page(self._html(0, self.strength))

        def draw(_: object) -> None:
            page.value = self._html(choice.value, {name: each.value for name, each in sliders.items()})

        for control in (choice, *sliders.values()):
            control.observe(draw, names="value")
        return VBox([choice, *sliders.values(), page])

    def _html(self, number: int, strength: Mapping[str, float]) -> str:
        if not 0 <= number < self.n:
            raise UserError(f"number {number} is not one of 0 to {self.n - 1}")
        if unknown := [name for name in strength if name not in self.strength]:
            raise UserError(f"{unknown[0]!r} is no strength; there are {', '.join(self.strength)}")
        pictures = self.draw(number, **strength)
        grey = np.concatenate([np.pad(p, 1, constant_values=1) for p in pictures], axis=1).clip(-1, 1)
        png = BytesIO()
        image = Image.fromarray(((grey + 1) * 127.5).astype(np.uint8))
        image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST).save(png, "PNG")
        said = ", ".join(f"{name} {value:g}" for name, value in strength.items())
        code = b64encode(png.getvalue()).decode()
        return f'<img alt="{escape(said)}" src="data:image/png;base64,{code}"><p>{escape(said)}'
