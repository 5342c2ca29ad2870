"""Writes tests/golden/clean.jsonl and clean_badness.json: what Diffusers' Wan pipelines make of a
prompt before they tokenise it (ftfy 6.3.1, html.unescape, white space), for text broken in every way.

    python tools/oracle/clean_golden.py

clean.jsonl has one case per line: [input, ftfy.fix_text, prompt_clean, html.unescape, is_bad]; an
output that equals the input is 0, a prompt_clean that equals the fix_text is 1.
clean_badness.json has every pair of characters that ftfy's heuristic knows, alone and in context.
"""

import html
import json
import pathlib
import random
import unicodedata

import ftfy
import regex
from ftfy import badness, chardata

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"
CASES = 6000
LONGEST = 80  # characters of an input

TEXTS = """\
A cat walks on the grass, realistic style, 4K
“It’s a dog’s life” — she said… and left.
Two anthropomorphic cats in comfy boxing gear fight on a spotlighted stage.
naïve café, déjà vu, à la carte, crème brûlée; voilà l’été
Ein süßer Igel läuft über die grüne Wiese, Öl auf Leinwand, 50 €
Größe: 3 × 4 µm, ±5 °C, ½ Maß Bier für 7,50 € – „prost“
Il était une fois à Paris, où l’œuvre d’art coûtait 100 € l’unité
Às vezes àquele São João põe açúcar à mesa às três
El niño comió piñas en Ñuñoa. ¿Qué pasó? ¡Olé!
Zażółć gęślą jaźń; Łódź, Kraków, źdźbło, pięć złotych
Příliš žluťoučký kůň úpěl ďábelské ódy
Árvíztűrő tükörfúrógép, Győr, Őszi fű
İstanbul’da şişe çığ güneş ağaç
Rīgā ēda ķirbi, Šiauliai ąžuolas žąsų
Красивая девушка идёт по Москве, снег, кинематограф
Привет, мир! «Ёлка» — это дерево № 5
Ґанок, їжак, є, ў Беларусі, Ђорђе Љубав
Η γρήγορη αλεπού πηδά πάνω από τον σκύλο, Άγιος, ΐ ώ
一只猫在草地上行走,写实风格,4K
色调艳丽，过曝，静态，细节模糊不清，字幕，整体发灰，最差质量
猫が芝生の上を歩いている、ﾘｱﾙｽﾀｲﾙ、ｶﾞﾗｽ、「４Ｋ」
고양이가 잔디 위를 걷는다, 밝은 햇살, ﾡﾢﾣ
القطة تمشي على العشب، ضوء الشمس الساطع
חתול הולך על הדשא, אור שמש בהיר
बिल्ली घास पर चलती है, धूप
แมวเดินบนหญ้า แสงแดดสดใส
ვეფხვი ტყეში, նապաստակը դաշտում
Con mèo đi trên cỏ, ánh nắng rực rỡ, ổ bánh mì
🐱 walks 🚶‍♀️ on 🌱 with 👩‍👩‍👧‍👦 and 🇩🇪 ❤️ ✔
¯\\_(ツ)_/¯ (╯°□°)╯︵ ┻━┻ ( ͡° ͜ʖ ͡°) ಠ_ಠ └[∵┌]└[ ∵ ]┘
LOUD ＮＯＩＳＥＳ　ａｎｄ　ｑｕｉｅｔ ！？（～）
The ﬁrst ﬂuﬃest oﬀer: Ǆ ǉ Ĳ ŉ ﬆ ﬅ
© 2024 ACME® Corp™ § 5 ¶ 3: £5, ¥700, ¢9 • 1⁄2 ≈ 0,5 ≤ 1
│ box ├──┤ ═══ ╬ ▀▄█▌▐░▒▓
x² + y³ = √∞ ∫ ∂f/∂x ∑ ∏ ∆ Ω ≠ π
Ærøskøbing, Ångström, Þór, Ðe, æsir, fjörð
cafe\u0301 A\u030a n\u0303 o\u0308\u0304 \u1100\u1161\u11a8 \u0958 \u2126 \u212b
tab\there, carriage\rreturn, both\r\f, form\ffeed, vertical\vtab
no\u00a0break \u2003em \u200bzero \u2028line\u2029paragraph\u0085next \ufeffbom \u00adshy
nul\x00 bell\x07 del\x7f sub\x1a esc\x1b fs\x1c us\x1f \u206a \ufff9x\ufffby\ufffc
\x1b[36;44mI'm blue\x1b[0m \x1b[1mbold\x1b[ \x1b[;;K \x1b[٣m \x1b[38;2;1;2;3m
&lt;b&gt; &amp;amp; &quot;x&quot; &hellip; &eacute;&EACUTE; &SZLIG; &nbsp;&NBSP; &ntilde &copy2024
&#233; &#xe9; &#XE9; &#128; &#x9f; &#0; &#13; &#x1f; &#55296; &#x110000; &#59; &#x3b; &#xfffe; &#1114112
&notit; &notin; &ampx; &AMPx; &LTIMES; &ltimes; &frac12; &FRAC12; &NotEqualTilde; &bne; &Hat; &;&# &#x; &
<p>tags &amp; entities &eacute;</p>
AT&T, R&B, a&b; x&y=1&lang=de&copy=1&para=2""".split("\n")

# Corners that chance hardly finds.
CORNERS = [
    "", " ", "\n", "\r", "&", "<", "\ufeff", "\x1c a \x1f", "\u3000a\u2003\u2003b\u3000", "\x85a\xa0\xa0b\x85",
    # A line feed at the end, taken for the last byte of Java's NUL and of a CESU-8 pair.
    "Ã©À\n", "Ã©À\x80\n", "Ã©À", "Ã©À\nx", "Ã©í\xa0½í¸\n", "Ã©í\xa0½í¸\x8d", "Ã©í\xa0½í¸", "Ã©í\xa0½\n",
    "Ã©í\xa0½í\xa0½x", "Ã©í\n", "Ã©í", "ìœ\xa0í•œ", "í\xa0½í¸\x8d í\xa0½í¸\x8d", "í\xa0½í¸\ufffd", "í\xa0?í°\x80", "í\xa0\x80í°?",
    # HTML begins in the second line.
    "&eacute;\n<b>&eacute;\n&eacute;", "&lt;b&gt; &eacute;\n&eacute;", "&amp;lt; &amp;amp;amp;amp;eacute;",
    "&" + "a" * 31 + ";", "&amp" + "a" * 40, "&#" + "9" * 40 + ";", "&#x" + "0" * 40 + "41;", "&#" + "0" * 23 + "9;",
    "&CounterClockwiseContourIntegral;", "&counterclockwisecontourintegral;", "&ThickSpace;x", "&napos;&NAPOS;",
    # "Ã " as a word, and the Portuguese words that begin so; the words for other mojibake.
    "voilÃ le travail", "Ã la carte, dÃ©jÃ vu", "Ã s vezes Ã quele Ã quela Ã quilo Ã quel Ã", "Ã  la Ã  vu", "a Ã\xa0 b",
    "â\x80 â€œquoteâ€\ufffd â€?", "ð\x9f\x98 ð Ÿ˜€ ðŸ \x80 ã \x81", "Ã? Ã\ufffd â\x1a\x80 ð\ufffd\ufffd\ufffd ð?\x9f\x98",
    "P&EACUTE;REZ ã\x83\x84 Ã©", "Inconsistent Ã© and é, then \ufffd â€™s ‘Ã¼’", "x¬´x â‰¥ √± ≈° ‚Äì ‚âà", "ГўВЂВњx", "ā€œ β€™ вЂ™",
    "\x81\x8d\x8f\x90\x9d \x80\x85\x92", "a\x92s \x96 b\x85", "\x93Ω\x94", "mojibake \x80 \u0416",
]

CODECS = list(chardata.CHARMAP_ENCODINGS)
KNOWN = sorted({char
                for members in [*badness.MOJIBAKE_CATEGORIES.values(), *chardata.UTF8_CLUES.values()]
                for char in regex.findall("[" + members + "]", "".join(map(chr, range(0x10000))))}
               | set("aZz09 .,?!&;_-\n\x1a\x1bŒœ°π²³€™"))
ASSIGNED = [chr(c) for c in range(0x20, 0x32000)
            if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]


# What stands before and after a pair of characters, so that longer rules complete or fail.
CONTEXTS = [("", ""), ("x", ""), ("", "x"), ("Q", ""), (" ", ""), ("x ", ""), (".", ""), ("", " "), ("", "²"),
            ("", "«"), ("Ø·", ""), ("", "Ø·"), ("Г", ""), ("Ξ", ""), ("‚", ""), ("β", ""), ("ГўВЂВ", "")]


# Of the Greek and Cyrillic letters, which are many and alike, the ends of the alphabets and those with rules.
PAIRED = [c for c in KNOWN if not "Α" < c < "ω" and not "А" < c < "џ" or c in "ΒΓΞΟΩΪΫάΰαβВГРСЯавЂўя"]


def prompt_clean(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", text).strip()


def cesu8(text):
    utf16 = text.encode("utf-16-be")
    units = (chr(int.from_bytes(utf16[i:i + 2], "big")) for i in range(0, len(utf16), 2))
    return b"".join(unit.encode("utf-8", "surrogatepass") for unit in units).replace(b"\0", b"\xc0\x80")


class Breaker:
    """Breaks text in the ways that ftfy and html.unescape know, and in some that they do not."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def piece(self):
        text = self.random.choice(TEXTS)
        length = self.random.randint(1, 40)
        start = self.random.randrange(max(1, len(text) - length + 1))
        return text[start:start + length]

    def misread(self, text, encode=lambda text: text.encode("utf-8", "replace")):
        codec = self.random.choice(CODECS + CODECS[:2] * 3)
        errors = self.random.choice(["replace", "ignore"])
        if self.random.random() < 0.1:
            codec = codec.replace("sloppy-", "")
        return encode(text).decode(codec, errors)

    def misread_cesu8(self, text):
        return self.misread(text + self.random.choice(["", "😍", "\0", "𝒜"]), cesu8)

    def lose(self, text):
        """Loses or replaces single characters, above all those of mojibake."""
        result = []
        for char in text:
            dice = self.random.random()
            if char == "\xa0" and dice < 0.7:
                char = " "
            elif ord(char) > 0x7f and dice < 0.15:
                char = self.random.choice(["\ufffd", "\ufffd", "?", "", " ", "\x1a"])
            elif dice < 0.02:
                char = self.random.choice(["", char + char, self.random.choice(KNOWN)])
            result.append(char)
        return "".join(result)

    def entities(self, text):
        result = []
        for char in text:
            dice = self.random.random()
            name = html.entities.codepoint2name.get(ord(char))
            if ord(char) < 0x80 and dice < 0.9 and char not in "&<>\"'":
                result.append(char)
            elif name and dice < 0.6:
                name = name.upper() if self.random.random() < 0.2 else name
                result.append("&" + name + ("" if self.random.random() < 0.2 else ";"))
            elif dice < 0.8:
                form = self.random.choice(["&#{};", "&#x{:x};", "&#X{:X};", "&#{}", "&#x{:x}", "&amp;#{};"])
                result.append(form.format(ord(char)))
            else:
                result.append(char)
        return "".join(result)

    def any_entity(self, text):
        name = self.random.choice(list(html.entities.html5))
        name = self.random.choice([name, name, name.rstrip(";"), name.upper(), name.lower(), name[:-2]])
        number = self.random.choice([self.random.randrange(0x120), self.random.randrange(0x3000),
                                     self.random.randrange(0x120000), 0xd800, 0xfdd0, 0x1fffe, 10**20])
        tail = self.random.choice([";", "", ";;", "x", "=", " "])
        entity = self.random.choice(["&" + name, f"&#{number}" + tail, f"&#x{number:x}" + tail,
                                     "&" + name.strip(";") + tail, "&amp;" + name])
        return self.insert(text, entity)

    def insert(self, text, what):
        position = self.random.randint(0, len(text))
        return text[:position] + what + text[position:]

    def odd_character(self, text):
        odd = ["\r", "\r\n", "\n", "\u2028", "\u2029", "\x85", "\ufeff", "\0", "\x1a", "\x0b", "\x1c",
               "\x7f", "\u206f", "\ufffa", "\xa0", "\u3000", "\u200b", "\x1b[31m", "\x1b[0;1m", "\x1b[",
               "ﬁ", "ŉ", "ʼ", "“", "’", "‟", "‛", "Ａ", "ｶﾞ", "ￌ", "￥", "<", "&", "Ã ", "Â ", "à ",
               "\u0301", "\u0308", "\u1161", "À\n", "í\xa0\x80í°\n", "\ufffd"]
        return self.insert(text, self.random.choice(odd))

    def wide(self, text):
        return "".join(chr(ord(c) + 0xfee0) if "!" <= c <= "~" and self.random.random() < 0.5 else c
                       for c in text)

    def known(self, text):
        count = self.random.randint(1, 7)
        return self.insert(text, "".join(self.random.choices(KNOWN, k=count)))

    def assigned(self, text):
        return self.insert(text, "".join(self.random.choices(ASSIGNED, k=self.random.randint(1, 4))))

    def soup(self, text):
        count = self.random.randint(1, 12)
        low = self.random.choice([0, 0x20, 0x80, 0xc0])
        soup = bytes(self.random.randrange(low, 256) for _ in range(count))
        return self.insert(text, soup.decode(self.random.choice(CODECS)))

    def utf8_soup(self, text):
        """Lead bytes with continuations, rightly or wrongly many, now and then with a lost byte."""
        data = bytearray()
        for _ in range(self.random.randint(1, 4)):
            data.append(self.random.choice([0xc0, 0xc2, 0xc3, 0xd0, 0xe0, 0xe2, 0xe3, 0xed, 0xef, 0xf0,
                                            0xf3, 0xf4, self.random.randrange(0xc0, 0x100)]))
            for _ in range(self.random.randint(0, 3)):
                data.append(self.random.choice([self.random.randrange(0x80, 0xc0)] * 5
                                               + [0x20, 0x1a, 0x3f, 0x0a]))
        return self.insert(text, bytes(data).decode(self.random.choice(CODECS)))

    def splice(self, text):
        other = self.piece()
        if self.random.random() < 0.5:
            other = self.misread(other)
        return text + self.random.choice(["", " ", "\n", "\r\n"]) + other

    def case(self):
        text = self.piece()
        ways = [self.misread] * 6 + [self.lose] * 3 + [self.splice] * 2 + [self.known] * 2 + [
            self.misread_cesu8, self.entities, self.any_entity, self.odd_character, self.odd_character,
            self.wide, self.assigned, self.soup, self.utf8_soup]
        for _ in range(self.random.choice([0, 1, 1, 1, 2, 2, 2, 3, 3, 4])):
            text = self.random.choice(ways)(text)
        if self.random.random() < 0.05:
            text = "".join(self.random.choices(KNOWN, k=self.random.randint(2, 8)))
        return text


def expected(text):
    fixed, clean, unescaped = ftfy.fix_text(text), prompt_clean(text), html.unescape(text)
    return [text, 0 if fixed == text else fixed, 1 if clean == fixed else 0 if clean == text else clean,
            0 if unescaped == text else unescaped, int(badness.is_bad(text))]


def write_cases():
    breaker, cases = Breaker(seed=1), {text: expected(text) for text in TEXTS + CORNERS}
    while len(cases) < CASES:
        text = breaker.case()
        if len(text) > LONGEST or text in cases:
            continue
        result = expected(text)
        # Text that nothing happens to is the less telling part.
        if result[1] != 0 or result[3] != 0 or breaker.random.random() < 0.3:
            cases[text] = result
    with open(GOLDEN / "clean.jsonl", "w", encoding="utf-8", newline="\n") as file:
        for case in cases.values():
            file.write(json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_badness():
    """For each context the groups of first characters that are bad before the same second ones."""
    contexts = []
    for prefix, suffix in CONTEXTS:
        groups = {}
        for first in PAIRED:
            bad = "".join(second for second in PAIRED if badness.is_bad(prefix + first + second + suffix))
            groups[bad] = groups.get(bad, "") + first
        contexts.append({"prefix": prefix, "suffix": suffix,
                         "groups": [{"first": first, "bad_second": bad} for bad, first in groups.items()]})
    with open(GOLDEN / "clean_badness.json", "w", encoding="utf-8", newline="\n") as file:
        data = {"characters": "".join(PAIRED), "contexts": contexts}
        file.write(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    write_cases()
    write_badness()
