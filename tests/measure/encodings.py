"""How many subtitle files of unknown encoding are read with the right letters.

    python -m tests.measure.encodings

One file for each sentence, with two cues of a few words, and one that repeats it twenty times; in
the encoding of Windows and in that of ISO where the letters exist in both. Beside ours stands
charset_normalizer, which read them before December 2026.
"""

from collections.abc import Callable, Iterator

from charset_normalizer import from_bytes

from encoders.text.decoding import decode

ISO = {
    "cp1252": "iso8859-1",
    "cp1250": "iso8859-2",
    "cp1253": "iso8859-7",
    "cp1254": "iso8859-9",
    "cp1257": "iso8859-13",
}
SENTENCES = {
    "cp1252": [
        "La clé est là-bas, près du château.",
        "Où étais-tu hier soir ?",
        "Ça va mieux ?",
        "Je l'ai déjà vu à la télé.",
        "O que é que você está a fazer?",
        "Ela não sabe de nada.",
        "Já são três horas.",
        "¿Qué pasó? Nadie lo sabrá jamás.",
        "Mañana será otro día.",
        "Perché non vieni più?",
        "È già mezzanotte, però c'è tempo.",
        "Können Sie mich hören?",
        "Wir müssen jetzt gehen, schließ die Tür.",
        "Var är han? Jag är här.",
        "Hvad laver du på gården?",
        "Det går bra, følg meg nå.",
        "Onko tämä sinun?",
        "Hann er ekki hér, þú veist það.",
        "La forêt est là.",
        "à bientôt, mon frère",
        "Não, obrigado. Amanhã à noite.",
        "El niño está aquí.",
        "Perché no? È così.",
        "Schöne Grüße aus München",
        "Kan du höra mig nu?",
        "Jeg er på vej nu, skat",
        "Très bien, merci beaucoup",
        "Voilà, c'est fini",
        "Let's go to the café",
        "Hyvää päivää",
        (
            "L'été dernier, le port a été reconstruit en granit par les ouvriers de la "
            "région. Ça n'a pas été facile, où étiez-vous ? À la forêt, près du château."
        ),
        "O cão está no jardim, não há ninguém lá à noite. A construção do cais começou em março.",
        "¿Dónde está el niño? Mañana iremos a la montaña, y después veremos qué pasa aquí.",
        "Perché non è più così? La città è già là, però la verità verrà lunedì.",
        "Die Straße führt über die Brücke und außerdem zurück.",
        "Jag såg den när vi åkte över ån på väg till sjön, det är väldigt roligt.",
        "Jeg går på arbejde hver dag, og så får vi øl og rødgrød med fløde på en ø.",
        "Hvor er båten? Den ligger på øya. Vi må gå nå, før det blir mørkt og kaldt.",
        "Hän ei tiedä mitä hän näki eilen yöllä metsässä, mutta se oli hyvä päivä.",
        "Hij heeft één café in België gezien, de ideeën zijn geïmporteerd, zei hij.",
        "Þetta er gott veður í dag, við skulum fara út að ganga og sjá fjöllin þar. Ég á hús.",
        "“Hello,” he said – it’s a long day… and we don’t know why.",
        (
            "Let us go to the café tonight and see if it is any good, said the girl with the "
            "naïve smile."
        ),
    ],
    "cp1250": [
        "Gdzie są klucze?",
        "Proszę, wejdź do środka.",
        "Kde jsou klíče?",
        "Prosím, pojďte dál.",
        "Hol vannak a kulcsok?",
        "Kérem, jöjjön be, tűz van.",
        "Unde sunt cheile? Nu ştiu.",
        "Gdje su ključevi? Molim vas, uđite.",
        "Kje so ključi? Prosim, vstopite, čakam.",
        "Kde sú kľúče? Poďte ďalej.",
        "Nie wiem, co się dzieje.",
        "Nevím, co se děje.",
        "Nem tudom, mi történik itt, őszintén.",
        "Nu ştiu ce să fac.",
        "Što ćemo sada?",
        "Cześć, dziękuję bardzo",
        (
            "Gdzie jest mój brat? Poszedł do sklepu, żeby kupić chleb i masło, ale już wraca. "
            "Cześć, dziękuję bardzo."
        ),
        (
            "Kde je můj bratr? Šel do obchodu koupit chléb a máslo, ale už se vrací. Děkuji, "
            "to je příliš."
        ),
        (
            "Hol van a bátyám? Elment a boltba kenyeret és vajat venni, de már jön. Köszönöm, "
            "őrült nagy fű."
        ),
        (
            "Unde este fratele meu? S-a dus la magazin să cumpere pâine şi unt, dar se "
            "întoarce. Mulţumesc."
        ),
        (
            "Gdje je moj brat? Otišao je u dućan kupiti kruh i maslac, ali već se vraća. "
            "Hvala, želim još čaja."
        ),
    ],
    "cp1254": [
        "Anahtarlar nerede? Lütfen içeri girin, şimdi.",
        "Bunu gördün mü, çok güzel değil mi?",
        (
            "Kardeşim nerede? Ekmek ve tereyağı almak için markete gitti ama şimdi dönüyor. "
            "Çok teşekkürler, ığdır."
        ),
    ],
    "cp1257": [
        "Kur yra raktai? Prašau, užeikite.",
        "Kur ir atslēgas? Lūdzu, nāciet iekšā.",
        "Kus on võtmed? Palun tulge sisse, õues on külm.",
        (
            "Kur mano brolis? Jis nuėjo į parduotuvę nusipirkti duonos ir sviesto, bet jau "
            "grįžta. Ačiū, labai gražu."
        ),
        (
            "Kus mu vend on? Ta läks poodi leiba ja võid ostma, aga ta tuleb juba tagasi. "
            "Aitäh, õhtu."
        ),
    ],
    "cp1251": [
        "Где мой брат? Он пошёл в магазин купить хлеб и масло, но уже возвращается.",
    ],
    "koi8-r": [
        "Где мой брат? Он пошёл в магазин купить хлеб и масло, но уже возвращается.",
    ],
    "cp1253": [
        "Πού είναι ο αδερφός μου; Πήγε στο μαγαζί να αγοράσει ψωμί και βούτυρο.",
    ],
    "cp1255": [
        "איפה אחי? הוא הלך לחנות לקנות לחם וחמאה, אבל הוא כבר חוזר.",
    ],
    "cp1256": [
        "أين أخي؟ ذهب إلى المتجر لشراء الخبز والزبدة، لكنه عائد الآن.",
    ],
    "cp874": [
        "พี่ชายของฉันอยู่ที่ไหน เขาไปร้านซื้อขนมปังและเนย",
    ],
    "gb18030": [
        "我的哥哥在哪里？他去商店买面包和黄油了，但是他已经回来了。",
    ],
    "big5": [
        "我的哥哥在哪裡？他去商店買麵包和奶油了，但是他已經回來了。",
    ],
    "shift_jis": [
        "兄はどこですか？パンとバターを買いに店へ行きましたが、もう帰ってきます。",
    ],
    "euc_kr": [
        "내 형은 어디에 있나요? 빵과 버터를 사러 가게에 갔지만 이미 돌아오고 있습니다.",
    ],
}


def files() -> Iterator[tuple[str, str]]:
    """(text, encoding) of each file."""
    for windows, sentences in SENTENCES.items():
        for encoding in filter(None, (windows, ISO.get(windows))):
            for sentence in sentences:
                for times in (1, 20):
                    yield srt(sentence, times), encoding


def srt(sentence: str, times: int) -> str:
    middle = len(sentence) // 2
    cues = [sentence[:middle], sentence[middle:]] * times
    return "".join(
        f"{n}\n00:00:{n % 60:02d},000 --> 00:00:{n % 60:02d},900\n{cue}\n\n"
        for n, cue in enumerate(cues, 1)
    )


def ours(data: bytes) -> str | None:
    return decode(data)[0]


def before(data: bytes) -> str | None:
    best = from_bytes(data).best()
    return data.decode("cp1252" if best is None else best.encoding, "replace")


def main() -> None:
    arms: dict[str, Callable[[bytes], str | None]] = {"chardet": ours, "charset_normalizer": before}
    wrong: dict[str, list[str]] = {name: [] for name in arms}
    count = 0
    for text, encoding in files():
        try:
            data = text.encode(encoding)
        except UnicodeEncodeError:
            continue
        count += 1
        for name, read in arms.items():
            if read(data) != text:
                wrong[name].append(f"{encoding}: {text.splitlines()[2]}")
    for name, rows in wrong.items():
        print(f"{name}: {len(rows)} of {count} files with wrong letters")
    print(*wrong["chardet"], sep="\n")


if __name__ == "__main__":
    main()
