"""Mistakes that mypy has to find; the remark behind a line names the error."""

import reelbank

bank = reelbank.open("films", fps="1")  # arg-type
bank.add(3)  # arg-type
bank.add("a.mp4", progress=lambda done: done.percent)  # attr-defined
bank.ask("What?", "a.mp4")  # call-arg
text: str = bank.ask("What?")  # assignment
bank.find("x", top=3)  # call-arg
hit = bank.find("x")[0]
hit.score = 1.0  # misc
hit.picture()  # attr-defined
hit.clip()  # call-arg
bank.videos.append(hit.video)  # attr-defined
for span in bank.ask("What?").spans:
    print(span.score)  # attr-defined
