"""How much each frame embedder counts for a question, where a bank has rows of several.

The embedded one knows cards alone, and the others know the world. Knows words of the needle world;
no bank and no model.
"""

from collections.abc import Iterable

EMBEDDED = "embedded"  # the name of the embedder that knows cards


def picture_weights(question: str, names: Iterable[str]) -> dict[str, float]:
    """Weights from 0 to 1 of embedders by name.

    A question about cards is for the embedded one alone. One that names what cards show as well as
    what a film may show ("a red car") is for all, and any other for all but the embedded one.
    """
    names = tuple(names)
    if EMBEDDED not in names or len(names) == 1:
        return dict.fromkeys(names, 1.0)
    # it imports PIL, which a search of one embedder does not need
    from pipeline.needle_world.questions import is_about_cards, may_name_cards

    only_cards = is_about_cards(question)
    cards = float(only_cards or may_name_cards(question))
    return {name: cards if name == EMBEDDED else float(not only_cards) for name in names}
