"""What all formats of benchmarks share: the path of a row's video, and rows within rows."""

from collections.abc import Iterator

from pipeline.batch.annotations.fields import Values, is_empty, path_of
from pipeline.batch.schema import Entry, RejectedRow


class Benchmark:
    """A format of annotation files: converts each row to rows in our columns.

    `video` is a path template below videos=DIR with the row's fields in braces; it is a setting
    because copies are stored differently. `subtitles` is one for the file that text=[subtitles]
    reads; "": the files beside the video. `prompt` is the benchmark's own prompt as far as known;
    option_choice=parse uses it.
    """

    whole_file = False  # True: a .json file that holds an object is one entry, not a list of rows

    def __init__(self, *, video: str, prompt: str, subtitles: str = "") -> None:
        self.video, self.prompt, self.subtitles = video, prompt, subtitles

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        """The rows within an entry of the file, each with its place; by default the entry alone."""
        yield entry

    def __call__(self, values: Values) -> list[Values]:
        """The rows of one row, in our columns. RowError when it has another form."""
        raise NotImplementedError

    def _files(self, values: Values) -> Values:
        """The columns of a row that name files: its video, and its subtitles if it has any."""
        files: Values = {"video": path_of(self.video, values)}
        fields = [part.split("}")[0] for part in self.subtitles.split("{")[1:]]
        if self.subtitles and all(not is_empty(values.get(field)) for field in fields):
            files["subtitles"] = path_of(self.subtitles, values)
        return files


class OwnColumns:
    """Rows that already have our columns."""

    whole_file = False

    def __init__(self, *, prompt: str) -> None:
        self.prompt = prompt

    def unfold(self, entry: Entry) -> Iterator[Entry | RejectedRow]:
        yield entry

    def __call__(self, values: Values) -> list[Values]:
        return [values]


def nested(entry: Entry, field: str) -> Iterator[Entry | RejectedRow]:
    """An entry for each object in a list of an entry, with the fields around it. The object's own
    fields win. An entry whose field is no list is rejected, and so is an element that is no object.
    """
    found = entry.values.get(field)
    if not isinstance(found, list):
        yield RejectedRow(entry.place, f"the field {field} is no list of objects")
        return
    around = {name: value for name, value in entry.values.items() if name != field}
    for number, values in enumerate(found, start=1):
        place = f"{entry.place}, {field} {number}"
        if isinstance(values, dict):
            yield Entry(place, around | values)
        else:
            yield RejectedRow(place, "not an object with named values")
