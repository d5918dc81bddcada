"""Talks as sound, whose words are known: espeak-ng with several voices; and sound without words.

Knows espeak-ng by tests/support/voices.py. The same seed gives the same noise.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.voices import speak

RATE = 16_000  # samples a second

HARBOR = """\
Welcome to the old harbor, and thank you for coming in this weather.
The first pier was built of oak in the year eighteen forty seven.
Before that, ships had to anchor far out and wait for small boats.
The lighthouse on the hill is younger than most people think.
Its lamp burned fish oil until a merchant paid for gas.
On stormy nights the keeper rang a bell every two minutes.
The biggest ship that ever came here carried coal from Wales.
Nine men were needed to turn the wooden crane.
Later an engineer named Martha Reed put a steam engine under it.
She had studied bridges and never saw a ship before she came.
The warehouses along the water held wool, salt and dried fish.
Fire destroyed three of them in one winter.
After the fire the town bought a pump with four wheels.
Children were paid a penny to watch for smoke.
The railway arrived late because of the swamp behind the town.
It brought tourists, who wanted to swim and not to fish.
Today the water is clean enough for seals.
You can see them on the rocks at low tide.
Please do not feed them, however hungry they look.
The small museum opens at ten and closes at four.
There you will find the bell, the lamp and a very old map.
The map shows an island that nobody has ever found.
My grandfather believed that it was a whale.
Let us walk on before the rain begins again.
"""
KITCHEN = """\
Good evening, today we are going to bake a plain brown bread.
You need flour, water, salt and a spoon of old dough.
Weigh the flour, because a cup is never twice the same.
Warm water makes the dough rise faster, but it tastes less.
Stir everything together and let it rest for half an hour.
Resting is the secret that my aunt never told anybody.
Now fold the dough four times, like a letter.
It should feel soft and come away from the bowl.
If it sticks to your fingers, wet your hands and wait.
Cover the bowl with a towel and go to bed.
In the morning the dough has doubled and smells of apples.
Heat the oven for a long time, until the stone is very hot.
A pot with a heavy lid works just as well.
Cut a cross into the bread with a sharp knife.
The cut lets the steam out where you want it.
Bake with the lid for twenty minutes and without it for thirty.
Knock on the bottom, and it should sound like a drum.
Then comes the hardest part, which is waiting.
Hot bread is difficult to cut and heavy in the stomach.
My neighbor Oscar never waits and always complains.
Keep the bread in a paper bag and never in the fridge.
On the third day it makes wonderful toast.
Old crumbs go into the soup with onions and cheese.
Next week we will roast a chicken with lemons.
"""
MEETING = """\
Thank you all for joining, I know that it is late in Tokyo.
The first point is the bridge over the river at Mill Road.
The city wants two lanes for bicycles and one for buses.
Our budget allows steel, but only if we order before June.
Samira, could you ask the supplier in Finland for a price?
The old drawings are wrong about the depth of the eastern pillar.
Divers measured eleven meters instead of seven.
That means longer piles and about three more weeks.
The second point is noise, because there is a school nearby.
We promised to be silent during the exams in May.
Perhaps we can pour the concrete in the holidays.
Peter has found a pump that is much quieter.
It costs more, but we can rent it by the day.
The third point is the opening, which should be in October.
The mayor would like a band and the fire brigade.
I would be happy with coffee and a working bridge.
Somebody has to write to the people who lost their parking spaces.
Julia knows most of them and has offered to visit each one.
Let us give her the new map before Thursday.
Is there anything else that cannot wait until next month?
Yes, the insurance wants a photograph of every crack.
Then we need a drone and somebody who may fly it.
Omar has a licence and two hours on Friday.
Good, that is all, have a pleasant evening.
"""
# voice of espeak-ng, words a minute, text
TALKS = {
    "harbor": ("en-us", 150, HARBOR),
    "kitchen": ("en-gb", 145, KITCHEN),
    "meeting": ("en-us+f3", 150, MEETING),
}
_BETWEEN_S = 0.45  # seconds of silence between two sentences


def talk(name: str, folder: Path) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """[n] int16 samples at RATE, and (start, end, sentence) in seconds for each sentence."""
    voice, speed, text = TALKS[name]
    return say(text.splitlines(), folder, voice, speed)


def say(
    sentences: list[str], folder: Path, voice: str = "en-us", speed: int = 150
) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Somebody who says these sentences, as `talk` does."""
    parts: list[np.ndarray] = []
    cues: list[tuple[float, float, str]] = []
    pause = np.zeros(round(_BETWEEN_S * RATE), np.int16)
    at = 0.0
    for sentence in sentences:
        samples, rate = speak(sentence, folder, voice, speed)
        samples = resampled(samples, rate)
        cues.append((at, at + len(samples) / RATE, sentence))
        parts += [samples, pause]
        at += (len(samples) + len(pause)) / RATE
    return np.concatenate(parts), cues


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """[n] int16 at RATE."""
    times = np.arange(round(len(samples) * RATE / rate)) * rate / RATE
    return np.interp(times, np.arange(len(samples)), samples).astype(np.int16)


def with_noise(samples: np.ndarray, decibels: float, seed: int = 0) -> np.ndarray:
    """The same with low noise that is so many decibels fainter."""
    noise = _colored(len(samples), 1.0, np.random.default_rng(seed))
    loud = np.sqrt(np.mean(np.square(samples[samples != 0], dtype=np.float64)))
    mixed = samples + noise * loud / 10 ** (decibels / 20)
    return mixed.clip(-32768, 32767).astype(np.int16)


def _colored(size: int, power: float, rng: np.random.Generator) -> np.ndarray:
    """[size] float noise of loudness 1 whose spectrum falls with this power of the frequency."""
    spectrum = np.fft.rfft(rng.normal(0, 1, size))
    frequencies = np.fft.rfftfreq(size, 1 / RATE).clip(20)
    noise = np.fft.irfft(spectrum / frequencies ** (power / 2), size)
    return noise / np.sqrt(np.mean(noise**2))


def _silence(size: int, rng: np.random.Generator) -> np.ndarray:
    return np.zeros(size)


def _hiss(size: int, rng: np.random.Generator) -> np.ndarray:
    return 300 * rng.normal(0, 1, size)


def _street(size: int, rng: np.random.Generator) -> np.ndarray:
    """Low rumble, a car that passes every 4 seconds or so, and now and then a horn."""
    sound = 400 * _colored(size, 2.0, rng)
    rush = _colored(size, 1.0, rng)
    seconds = np.arange(size) / RATE
    at = 0.0
    while at < size / RATE:
        loud, width = rng.uniform(500, 4000), rng.uniform(0.6, 2.5)
        near = np.abs(seconds - at) < 4 * width
        sound[near] += loud * np.exp(-(((seconds[near] - at) / width) ** 2)) * rush[near]
        if rng.random() < 0.15:
            horn = (seconds > at) & (seconds < at + rng.uniform(0.2, 0.8))
            for pitch in (392.0, 494.0):
                sound[horn] += 2000 * np.sin(2 * np.pi * pitch * seconds[horn])
        at += rng.exponential(4.0)
    return sound


def _music(size: int, rng: np.random.Generator) -> np.ndarray:
    """Chords, a melody with overtones and vibrato, and a beat."""
    seconds, beat = np.arange(size) / RATE, 0.4
    sound = np.zeros(size)
    scale = [0, 2, 4, 5, 7, 9, 11, 12]
    for number in range(int(size / RATE / beat)):
        part = slice(round(number * beat * RATE), round((number + 1) * beat * RATE))
        t = seconds[part] - number * beat
        fade = np.exp(-3 * t)
        root = 130.8 * 2 ** (rng.choice([0, 5, 7, 9]) / 12)
        if number % 4 == 0:
            base = root
        for step in (0, 4, 7):
            sound[part] += 900 * np.sin(2 * np.pi * base * 2 ** (step / 12) * seconds[part])
        pitch = 261.6 * 2 ** (scale[int(rng.integers(8))] / 12) * (1 + 0.004 * np.sin(35 * t))
        for tone in (1, 2, 3, 4):
            sound[part] += 2500 / tone * fade * np.sin(2 * np.pi * pitch * tone * t)
        if number % 2 == 0:
            sound[part] += 3000 * np.exp(-30 * t) * rng.normal(0, 1, len(t))
    return sound


NOISES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "silence": _silence,
    "hiss": _hiss,
    "street": _street,
    "music": _music,
}


def noise(name: str, seconds: float, seed: int = 0) -> np.ndarray:
    """[n] int16 samples at RATE without a word in them."""
    sound = NOISES[name](round(seconds * RATE), np.random.default_rng((20_261_129, seed)))
    return sound.clip(-32768, 32767).astype(np.int16)
