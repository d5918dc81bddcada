"""Everyday names of groups of ImageNet's classes: it has 118 breeds of dogs, and no dog.

The numbers are those of the classifier's outputs (encoders/models/imagenet/class_names.py).
"""

from functools import cache

import torch
from torch import Tensor

_GROUPS = {
    "fish": "0-6 389-397",
    "bird": "7-24 80-100 127-146",
    "frog": "30-32",
    "turtle": "33-37",
    "lizard": "38-48",
    "crocodile": "49-50",
    "snake": "52-68",
    "spider": "72-77",
    "crab": "118-121",
    "dog": "151-268",
    "wolf": "269-271",
    "fox": "277-280",
    "cat": "281-285",
    "bear": "294-297",
    "insect": "300-326",
    "butterfly": "321-326",
    "rabbit": "330-332",
    "sheep": "348-349",
    "ape": "365-369",
    "monkey": "370-382",
    "elephant": "101 385-386",
    "airplane, plane": "404 895",
    "ball": "429-430 522 574 722 768 805 852 890",
    "bicycle, bike": "444 671",
    "boat": "472 484 554 576 625 780 814 871 914",
    "bottle": "440 720 737 898 907",
    "bus": "654 779 874",
    "car": "407 436 468 511 609 627 656 661 751 817",
    "chair": "423 559 765",
    "clock": "409 530 892",
    "computer": "527 590 620",
    "flower": "985-986",
    "fruit": "948-957",
    "guitar": "402 546",
    "hat": "515 808",
    "keyboard": "508 810 878",
    "lamp": "619 846",
    "mushroom": "947 991-997",
    "piano": "579 881",
    "ship": "403 510 628",
    "shoe": "502 514 630 770 774",
    "telephone, phone": "487 528 707",
    "train": "466 547 705 820",
    "truck": "555 569 675 717 864 867",
}


@cache
def group_names() -> tuple[str, ...]:
    """The groups, in the order of the columns of `group_matrix`."""
    return tuple(_GROUPS)


@cache
def group_matrix() -> Tensor:
    """[1000, groups] float32: probabilities of classes times this are those of the groups."""
    matrix = torch.zeros(1000, len(_GROUPS))
    for column, numbers in enumerate(_GROUPS.values()):
        for part in numbers.split():
            first, _, last = part.partition("-")
            matrix[int(first) : int(last or first) + 1, column] = 1.0
    return matrix
