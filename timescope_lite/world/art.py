"""The pictures of Tiny Town as data: palette, bitmap font, object icons, skyline stencils, and people in the pose of a verb.

Everything is drawn with integers, so that a picture has the same pixels on every machine. Sheets are ASCII art, drawn at 2x and smoothed by
`scale2x`: one art pixel is one pixel of the 64 x 64 picture that the model sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from timescope_lite.common import UserError

Point = tuple[int, int]
Rgb = tuple[int, int, int]

CELL_H, CELL_W = 46, 64  # one person's stage, pixels
STEPS = 5  # poses per cycle of movement; coprime to 2 and 4, so that no whole frame rate sees always the same one
GLYPH_W = 12  # columns from letter to letter


def rgb(text: str) -> Rgb:
    """`#rrggbb` as three integers. Raises UserError for any other text."""
    try:
        value = int(text.removeprefix("#"), 16) if len(text) == 7 else -1
    except ValueError:
        value = -1
    if value < 0:
        raise UserError(f"colour {text!r} is not of the form #rrggbb; write six hexadecimal digits")
    return (value >> 16, value >> 8 & 255, value & 255)


def mix(a: Rgb, b: Rgb, percent: int) -> Rgb:
    """`percent` of b in a, in integers."""
    red, green, blue = (
        (x * (100 - percent) + y * percent + 50) // 100 for x, y in zip(a, b, strict=True)
    )
    return (red, green, blue)


INK, CREAM = rgb("#2b2a3a"), rgb("#fff7e6")
# The six place and clothing colours, near Paul Tol's vibrant and light schemes: apart in lightness as well as in hue, so that they
# stay apart for protanopes and deuteranopes (tests/test_render.py simulates both).
COLOUR_RGB = {
    "red": rgb("#c43320"),
    "blue": rgb("#1f5fae"),
    "gold": rgb("#f2c230"),
    "green": rgb("#2a9d6e"),
    "pink": rgb("#f9b3c8"),
    "grey": rgb("#747884"),
}
# What the letters of the icon sheet mean.
PALETTE = {
    "k": rgb("#3b3948"),
    "w": CREAM,
    "r": rgb("#d4402f"),
    "o": rgb("#ee8b2d"),
    "y": rgb("#f8d04a"),
    "g": rgb("#58b368"),
    "d": rgb("#2d7a57"),
    "b": rgb("#2f6fb8"),
    "s": rgb("#93d3f2"),
    "n": rgb("#80502f"),
    "t": rgb("#d2a566"),
    "p": rgb("#f4a9bd"),
    "v": rgb("#8160ad"),
    "e": rgb("#8d939d"),
    "l": rgb("#d5dae0"),
}

_FONT = """
a     b     c     d     e     f     g     h     i     j     k     l     m
.###. ####. .###. ####. ##### ##### .###. #...# .###. ..### #...# #.... #...#
#...# #...# #...# #...# #.... #.... #...# #...# ..#.. ...#. #..#. #.... ##.##
#...# #...# #.... #...# #.... #.... #.... #...# ..#.. ...#. #.#.. #.... #.#.#
##### ####. #.... #...# ####. ####. #.### ##### ..#.. ...#. ##... #.... #.#.#
#...# #...# #.... #...# #.... #.... #...# #...# ..#.. ...#. #.#.. #.... #...#
#...# #...# #...# #...# #.... #.... #...# #...# ..#.. #..#. #..#. #.... #...#
#...# ####. .###. ####. ##### #.... .###. #...# .###. .##.. #...# ##### #...#
n     o     p     q     r     s     t     u     v     w     x     y     z
#...# .###. ####. .###. ####. .#### ##### #...# #...# #...# #...# #...# #####
##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# #...# #...# ....#
##..# #...# #...# #...# #...# #.... ..#.. #...# #...# #...# .#.#. .#.#. ...#.
#.#.# #...# ####. #...# ####. .###. ..#.. #...# #...# #.#.# ..#.. ..#.. ..#..
#..## #...# #.... #.#.# #.#.. ....# ..#.. #...# #...# #.#.# .#.#. ..#.. .#...
#..## #...# #.... #..#. #..#. ....# ..#.. #...# .#.#. ##.## #...# ..#.. #....
#...# .###. #.... .##.# #...# ####. ..#.. .###. ..#.. #...# #...# ..#.. #####
"""

_ICONS = """
rope     anchor   barrel   fish     lever    bucket   wrench   pipe     bread    cake     sack     egg
.tttt... ...ll... .nttttn. ........ rr...... ..kkkk.. ee....ee ........ ........ ...r.... ..n..n.. ...ww...
tnnnnt.. ...ll... eeeeeeee ..bbb..b rrr..... .k....k. ee....ee dd...... .oooooo. ..www... ...nn... ..wwww..
tn..nt.. .eeeeee. nttnnttn .bbbbbbb .rl..... k......k .ee..ee. dggggg.. otootoot .pppppp. ..rrrr.. .wwwwww.
tn..nt.. ...ee... nttnnttn bkbbbbb. ..ll.... lssssssl ..eeee.. dgggggg. otootoot pwppwppp .tttttt. .wwwwww.
tnnnnt.. ...ee... nttnnttn bbbbbbb. ...ll... eellllle ...rr... dd..ggg. oooooooo pppppppp tttttttt wwwwwwwl
.ttttt.. e..ee..e eeeeeeee .bssbbbb ..eeee.. .elllll. ...rr... ....ggg. .tttttt. tttttttt ttttttnt wwwwwwll
.....tt. ee.ee.ee nttnnttn ..sss..b .eeeeee. .elllll. ...rr... ....ggg. .tttttt. wwwwwwww tttttntt .wwwlll.
......tt .eeeeee. .nttttn. ........ kkkkkkkk ..eeee.. ...rr... ...ddddd .tttttt. tttttttt .tttttt. ..llll..
bell     lantern  drum     key      pan      kettle   melon    cheese   brush    ladder   tin      broom
...yy... ..eeee.. t......t ..yyyy.. ......nn ..kkkk.. ........ ........ ......nn .t....t. ..eeee.. ......n.
..yyyy.. .e....e. .t....t. .yy..yy. .....nn. .k....k. ........ ......yy .....nnn .tttttt. .e....e. ......n.
.yyyyyo. .dddddd. ..wwww.. .yy..yy. .kkkkn.. .k.rr.k. drrrrrrd ....yyyy ....nnn. .t....t. e......e .....n..
.yyyyyo. ..wyyw.. yyyyyyyy ..yyyy.. kkwwkk.. v.vvvvv. drkrrkrd ..yyyyyy ...ene.. .tttttt. gggggggg .....n..
.yyyyyo. ..yyyy.. rrwrrwrr ...yy... kwyywk.. vvvvvvvv dwrrrrwd oooooooo ..eeee.. .t....t. gggggggg ....rr..
yyyyyyoo ..wyyw.. rwrrwrrw ...yyyy. kwyywk.. .vwvvvvv .dwrkwd. yyyoyyyy .bbee... .tttttt. lgglgggl ..yyyyy.
oooooooo .dddddd. rrwrrwrr ...yy... kkwwkk.. ..vvvvvv ..dwwd.. yoyyyyoy bbbb.... .t....t. lglllgll .yoyoyy.
...kk... dddddddd yyyyyyyy ...yyyy. .kkkk... ..vvvvv. ...dd... yyyyoyyy bbb..... .t....t. llllllll yoyoyyy.
clock    book     yarn     lamp     ball     kite     robot    teddy    pumpkin  carrot   apple    basket
..bbbb.. .vvvvvvv ..pppp.. ..yyyy.. ..rrww.. ...rr... ...rr... nn....nn ....dd.. .....g.g ....nd.. ..nnnn..
.bwwwwb. vvvvvvvv .pvppvp. ..yyyy.. .rrrwwb. ..rryy.. .eeeeee. nttttttn ...dd... ....ggg. ...ndd.. .n....n.
bwwkwwwb vvyyyyvv pvppvppp .yyyyyy. rrrrwbbb .rrryyy. .eyeeye. .tkttkt. .oooooo. ...oogg. .rrrrrr. n......n
bwwkwwwb vvvvvvvv pppvppvp .yyyyyy. wrrwwbbb .gggbbb. .eeeeee. .twnnwt. oorooroo ..oooo.g rrwrrrrr tntntntn
bwwkkkwb vvyyyyvv pvppvppp yyyyyyyy wwwyyyww ..ggbb.. llllllll ..twwt.. oorooroo .oroo... rwrrrrrr ntntntnt
bwwwwwwb vvvvvvvv ppvpppvp ...nn... yyyyyrrw ...gb... l.lrrl.l nttttttn oorooroo .ooo.... rrrrrrrr tntntntn
.bwwwwb. vwwwwwww .pppppp. ...nn... .yyyyrr. ....k... ..llll.. .tttttt. oorooroo oo...... .rrrrrr. .tntntn.
..bbbb.. .vvvvvvv ..ppppvv .nnnnnn. ..yyrr.. ..kk.... ..e..e.. .nn..nn. .oooooo. o....... ..rr.rr. .nnnnnn.
rock     log      map      axe      tent     guitar   boot     candle   net      boat     shell    crab
...ll... ........ wwwggwww ..nn.el. ...oo... ......kk ..nnnn.. ...y.... .llll... ...k.... ...oo... r......r
..lleee. ........ wgwggwbb ..nneell ...oo... .....kn. ..tttt.. ..yoy... l.l.ll.. ...kww.. .owoowo. rr....rr
.lleeee. .ttnnnnn wggwwwbb ..nneell ..oooo.. ....nn.. ..nnnn.. ...o.... ll.l.l.. ...kwww. owowwowo .r....r.
.leeeeee twwtnnkn wwrwrwww ..nneell ..okko.. .oooon.. ..nnnn.. ..www... l.l.ll.. ...kwwww owowwowo .rwrrwr.
leeeeeek twttnnnn bwwrwwgg ..nn.el. .ookkoo. oookoo.. ..nnnnn. ..wwl... .lllln.. ...k.... owowwowo rrkrrkrr
eeeeeekk twwtnknn bwrwrwgg ..nn.... .ookkoo. ookkko.. .nnnnnnn ..wwl... ......n. rrrrrrrr .owoowo. .rrrrrr.
eeeekkkk .ttnnnnn bbwwwwwg ..nn.... oookkooo oookoo.. .nnnnnnn ..wwl.ee ......nn .rrrrrr. ..oooo.. rrrrrrrr
.kkkkkk. ........ wwwwwwww ..nn.... oookkooo .oooo... .kkkkkkk .eeeeee. .......n ..rrrr.. ..o..o.. r.r..r.r
flag     cup      brolly   box      wheel    horn     gift     vase     hammer   camera   plant    shovel
nggg.... ........ ...k.... ........ ..kkkk.. ......yy .rr..rr. ..ssss.. .kkkkkk. ..ee.... ..g..g.. ....yyyy
nggggggg bbbbbb.. ..vvvv.. tttnnttt .kklkkk. .....yyy ..rrrr.. ...ss... kkkkkkkk kkkkkkky g.gg.gg. .....yy.
ngwwwggg bsbbbbbb .vvpvvv. tttnnttt kklllkkk oo..yyyy ggrrrrgg ..swws.. kkkkkkk. kkllllkk .gggggg. .....yy.
ngwwwggg bsbbbb.b vvpppvvv nnnnnnnn kllkkllk oyyyyyyy gggrrggg .ssssss. ...tt... klbbblkk ..gddg.. ....yy..
ngggg.gg bbbbbbbb v..n..v. tttttttt kllkkllk oyyyyyyy rrrrrrrr sbssbssb ...tt... klbsblkk ...dd... .eeny...
n....... bbbbbb.. ...n.... tttttttt kkklllkk oo..yyyy gggrrggg sssbssbs ...tt... klbbblkk .rrrrrr. eeee....
n....... bbbbbb.. ...n.n.. tttttttt .kkklkk. .....yyy gggrrggg .ssssss. ...tt... kkllllkk ..rrrr.. eeee....
n....... .bbbb... ...nnn.. nnnnnnnn ..kkkk.. ......yy gggrrggg ..ssss.. ...tt... kkkkkkkk ..rrrr.. .ee.....
hat      scarf    glove    mask     mirror   comb     soap     spoon    fork     bowl     jug      pie
..kkkk.. .rrrrrr. .b.b.b.. .....ppp ..oooo.. ........ ......s. ..tttt.. ll.ll.ll ......nn ww..ww.. ........
..kkkk.. rrp..prr .b.b.b.. .yyyppp. .ossswo. oooooooo .ss..... .ttnntt. ll.ll.ll .....nn. .wwwwwww ..tttt..
..kkkk.. .rppppr. .b.b.b.b vvvvyppv ossswsso oyyyyyyo .ss..ss. .ttnntt. ll.ll.ll .yyoyyy. .wwww..w .tvttvt.
..kkkk.. ..rppr.. .bbbbbbb vkkvvkkv osswssso oooooooo .....ss. ..tttt.. llllllll yyoyyyoy .bbbb..w tvttvttv
..rrrr.. .rrrppp. .bbbbbbb vkkvvkkv osssssso o.o.o.oo pppppppp ...tt... .eeeeee. bbbbbbbb .wwww.ww oooooooo
..rrrr.. rrr..ppp .bbbbb.. vvvvvvvv .osssso. o.o.o.oo pwprrppp ...tt... ...bb... bbwbbwbb wwwwwww. .ototot.
kkkkkkkk ppp..rrr ..www... yvv..vvy ..oooo.. o.o.o.oo pppppppp ...tn... ...bb... .bbbbbb. wbbbbw.. .llllll.
.kkkkkk. r.r..p.p ..wwww.. ........ .oooooo. o.o.o.oo rrrrrrrr ...tn... ...bb... ..bbbb.. wwwwww.. ..llll..
pizza    lemon    cherry   pear     corn     onion    sword    shield   crown    scroll   globe    rocket
nttttttn ...ddg.. ...ggg.. ...nn... ...yy... ...g.g.. .....lll bbbbyyyy r..bb..r nttttttn ..bggb.. ...rr...
tttttttt ..d.gg.. ..dd.gg. ...gg.dd ..yoyy.. ....gg.. ....llwe bbbbyyyy y..yy..y .wwwwww. .bggggb. ..rrrr..
yyryyyyy ..yyyy.. .dd.d... ..gggg.. ..yyoy.. ...vv... ...llwe. bbbbyyyy yy.yy.yy .wkkkkw. bbgggbbb ..wwww..
.rryyry. .ywyyyyy rrr..d.. ..gwgg.. g.yoyy.g ..vpvvv. y.llwe.. yyyybbbb yyyyyyyy .wwwwww. bbbggbbg ..wbbw..
.yyyyrr. yywyyyyo rwrr.rrr .gggggg. gg.yyogg .vpvvpvv yylwe... yyyybbbb yyyyyyyy .wkkkww. bgbbbbgg ..wbbw..
..yryy.. yyyyyyyo rrrrrwrr ggwggggd dggyyggd .vpvvpvv .yyy.... .yyybbb. yryybyry .wwwwww. .bggbbb. .rwwwwr.
..rryy.. .yyyyoo. .rr.rrrr gggggggd .dggggd. ..vpvvv. .ryyy... ..yybb.. yyyyyyyy nttttttn ..bbbb.. rrwwwwrr
...yy... ..yooo.. ....rrr. .gggddd. ..dddd.. ...www.. rr..yy.. ...yb... oooooooo .nnnnnn. .nnnnnn. r..oo..r
skate    racket   trophy   medal    whistle  drill    saw      anvil    hose     bone     feather  frog
wwww.... ....vvv. yyyyyyyy rrw..wrr ......kk .yyyyk.. ........ ........ ss...... ........ ......bb .gg..gg.
pppp.... ...vwwev y.ywyy.y .rrwwrr. .....k.k yyyyykll rrr..... ..llllll s.yyy... ww....ww ....bbbb gwkggkwg
pppw.... ..vwewwv y.ywyy.y ..rrrr.. oooooooo yyyyykll rrrlll.. eeeeeeee .syyyg.. wwwwwwww ...ssbbb gwkggkwg
ppppww.. ..vwwewv .yyyyyy. ..yyyy.. ookkoooo .yyyyk.. r.rlllll .eeeeeek ...yggg. .wwwwww. ..sswsb. gggggggg
pppppppp ..vewwv. ..yyyy.. .yyooyy. oooooooo .kkr.... r.rlllll ...eek.. gg...ggg .tttttt. .sswss.. gggggggg
pppppppp .vvvvv.. ...oo... .yoyyoy. ...oowoo .kk..... rrrlllll ...eek.. gg....gg wwttttww .swsss.. gkkkkkkg
eeeeeeee oov...yy ..kkkk.. .yyooyy. ...ooooo yyyy.... rrrl.l.l ..eeekk. ggg..ggg tt....tt wwss.... .gggggg.
yy.yy.yy oo....yy .kkkkkk. ..yyyy.. ....ooo. yyyy.... ........ .eeeekkk .gggggg. ........ ww...... gg.gg.gg
duck     mushroom cactus   rose     bottle   cone     radio    phone    magnet   flask    paddle   owl
..yyy... ..rrrr.. ...pp... ..rrrr.. ...nn... ..pppp.. ......k. rrrrrrrr ll....ll ..llll.. ..rrrr.. n......n
.yykyy.. .rwwrrr. ...gd.gd .rrprrr. ...dd... .ppwppp. .....k.. rr.rr.rr ll....ll ...ll... .rrrrrr. nnnnnnnn
ooyyyy.. rrwwrrwr gd.gd.gd .rprrpr. ...dd... .pppppp. ssssssss r..rr..r rr....bb ...ll... .rrrrrr. nyynnyyn
.oyyyy.y rrrrrrww gd.gdgdd .rrpprr. ..dddd.. .wwwwww. skkkswws ..rrrr.. rr....bb ..lwwl.. .rrrrrr. nykookyn
...yyyyy rrrrrrrr gddgddd. ..rrrr.. .dddddd. .tttntt. sklkssss .rrwwrr. rr....bb .lvvvvl. .rrrrrr. nyyooyyn
.yyyyyyy ..wwww.. .ddgd... gg.dd.gg .wwwwww. ..nttt.. skkksyys .rwkkwr. rrr..bbb .vvvpvv. ..kkkk.. nnttttnn
.yyyooyy ..wlww.. ...gd... .ggddgg. .wwrrww. ..ttnt.. ssssssss .rrwwrr. .rrrbbb. vvpvvvvv ...tt.ww .nttttn.
..yyyyy. ..wwww.. .tttttt. ...dd... .dddddd. ...tt... .k....k. rrrrrrrr ..rrbb.. vvvvvvvv ...tt.ww ..o..o..
"""

_STENCILS = """
gable      tower      dome       block      window     shelf      frame      door       fir        oak        hill       bush
....##.... ....##.... ....=..... .......... ########## .o#.=o#... .......... .########. ....##.... ...####... .......... ..........
...####... ...####... ....==.... .########. #oooo#ooo# .o#.=o#=.. ========== .#oo##oo#. ...####... .########. .......... ..........
..######.. ..######.. ...####... .#oo##oo#. #oooo#ooo# .o#==o#=#. =oooooooo= .#oo##oo#. ...####... ########## .......... ..........
.########. ..#o##o#.. ..######.. .########. #oooo#ooo# ========== =oooooo##= .########. ..######.. ##o#####o# ....oo.... ..........
########## ..######.. .########. .#oo##oo#. ########## .......... =oo##o###= .########. ...####... ########## ...oo##... ..........
.########. ..#o##o#.. .########. .########. #oooo#ooo# #.oo.#=... =o#######= .######=#. ..######.. .########. ..o#####.. ...##.##..
.#oo##oo#. ..######.. ========== .#oo##oo#. #oooo#ooo# #=oo=#=.#. =########= .########. .########. ..######.. .########. .########.
.#oo##oo#. ..#o##o#.. .#o#oo#o#. .########. ########## #=oo=#=o#. ========== .#oo##oo#. ..######.. ....==.... ########## ##########
.########. ..######.. .#o#oo#o#. .###==###. ========== ========== .......... .#oo##oo#. .########. ....==.... ########## ###o##o###
.###==###. ..######.. .########. .###==###. .......... .......... .......... .########. ....==.... ....==.... ########## ##########
chimney    crane      silo       hangar     bigtop     turret     bleacher   slide      mast       beacon     jet        canopy
...oo..... ..==...... ..###..... .......... ....#ooo.. #.##..##.# ....###### .###...... ....#..... ....##.... .......... ..........
....oo.... .=#=#===== .#####.... .......... ....##.... ########## ...####### .#=#...... ....#oo... ...####... ##........ ..######..
...==..... =##=###### .=====.... ...####... ....##.... .########. ........## #####..... ....#ooo.. ...=oo=... ###....... .########.
...##..... ..##....=. .#o###.##. .########. ..##oo##.. ..######.. .......oo# #=.###.... ..o.#oooo. ..======.. ####...... #o##oo##o#
...##...#. ..##....=. .#o####### ########## ##oo##oo## ..##oo##.. .....===== ##..###... .oo.#ooo.. ...####... #########. #o##oo##o#
...##..##. ..##...### .#o###==== ##======## ========== ..##oo##.. .....oooo# #=...###.. ooo.#..... ...oooo... #o#o#o#o## .=......=.
.####.###. ..##...#o# .#o####o## ##=oooo=## #oo#oo#oo# ..######.. ...======= ##....###. ....#..... ...####... ########## .=......=.
#########. ..##...### .#o####o## ##=oooo=## #oo#==#oo# ..######.. ...oooooo# #=.....### ########## ..######.. ...####... .=......=.
#oo##oo##. ..##...... .#o####o## ##=oooo=## #oo#==#oo# ..##==##.. .========= ##......## .########. ..oooooo.. ..####.... .########.
########## .####..... .#o####o## ##=oooo=## #oo#==#oo# ..##==##.. .oooooooo# #=......## ..######.. .########. ..==...... .#oooooo#.
"""


def _cut_sheet(sheet: str, height: int) -> dict[str, np.ndarray]:
    """Bands of one line of names and `height` lines of art, cut into arrays of character codes (0 where the art has a dot)."""
    lines, pictures = sheet.strip("\n").split("\n"), {}
    for top in range(0, len(lines), height + 1):
        rows = [line.split() for line in lines[top + 1 : top + 1 + height]]
        for column, name in enumerate(lines[top].split()):
            grid = np.array([list(row[column].encode()) for row in rows], dtype=np.uint8)
            pictures[name] = np.where(grid == ord("."), 0, grid).astype(np.uint8)
    return pictures


def scale2x(grid: np.ndarray) -> np.ndarray:
    """Twice the size with rounded corners (the EPX rule): (H, W) -> (2H, 2W), no new values."""
    padded = np.pad(grid, 1, mode="edge")
    up, down, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    corner = (up != down) & (left != right)
    big = grid.repeat(2, axis=0).repeat(2, axis=1)
    big[0::2, 0::2] = np.where(corner & (left == up), up, grid)
    big[0::2, 1::2] = np.where(corner & (up == right), right, grid)
    big[1::2, 0::2] = np.where(corner & (left == down), left, grid)
    big[1::2, 1::2] = np.where(corner & (down == right), right, grid)
    return big


FONT = {
    letter: (scale2x(grid) | grid.repeat(2, axis=0).repeat(2, axis=1)) > 0
    for letter, grid in _cut_sheet(_FONT, 7).items()
}
ICONS = _cut_sheet(_ICONS, 8)
STENCILS = _cut_sheet(_STENCILS, 10)


class Canvas:
    """A small picture with a mask of what has been drawn: `rgb` (H, W, 3) uint8, `mask` (H, W) bool. Coordinates are pixel corners."""

    def __init__(self, height: int, width: int) -> None:
        self.rgb = np.zeros((height, width, 3), dtype=np.uint8)
        self.mask = np.zeros((height, width), dtype=bool)

    def line(self, a: Point, b: Point, width: int, colour: Rgb) -> None:
        """A line from a to b with round ends, `width` pixels thick; exact, because it is compared in integers of half a pixel."""
        height, total = self.mask.shape
        x0, x1 = max(min(a[0], b[0]) - width, 0), min(max(a[0], b[0]) + width, total)
        y0, y1 = max(min(a[1], b[1]) - width, 0), min(max(a[1], b[1]) + width, height)
        if x0 >= x1 or y0 >= y1:
            return
        x = 2 * np.arange(x0, x1, dtype=np.int64) + 1 - 2 * a[0]
        y = 2 * np.arange(y0, y1, dtype=np.int64)[:, None] + 1 - 2 * a[1]
        dx, dy = 2 * (b[0] - a[0]), 2 * (b[1] - a[1])
        length2 = max(dx * dx + dy * dy, 1)
        along = np.clip(x * dx + y * dy, 0, length2)
        inside = (x * length2 - along * dx) ** 2 + (y * length2 - along * dy) ** 2 <= (
            width * length2
        ) ** 2
        self.rgb[y0:y1, x0:x1][inside] = colour
        self.mask[y0:y1, x0:x1] |= inside

    def dot(self, at: Point, width: int, colour: Rgb) -> None:
        """A disc of `width` pixels across."""
        self.line(at, at, width, colour)

    def box(self, x: int, y: int, width: int, height: int, colour: Rgb) -> None:
        """A filled rectangle, clipped to the canvas."""
        area = slice(max(y, 0), max(y + height, 0)), slice(max(x, 0), max(x + width, 0))
        self.rgb[area] = colour
        self.mask[area] = True

    def stamp(self, picture: np.ndarray, mask: np.ndarray, x: int, y: int) -> None:
        """Paste `picture` (h, w, 3) where `mask` (h, w) holds, top left corner at (x, y), clipped to the canvas."""
        height, width = self.mask.shape
        top = max(y, 0)
        left = max(x, 0)
        bottom = min(y + mask.shape[0], height)
        right = min(x + mask.shape[1], width)
        if top >= bottom or left >= right:
            return
        cut = mask[top - y : bottom - y, left - x : right - x]
        self.rgb[top:bottom, left:right][cut] = picture[top - y : bottom - y, left - x : right - x][
            cut
        ]
        self.mask[top:bottom, left:right] |= cut

    def outline(self, colour: Rgb = INK) -> Canvas:
        """Draw a border of one pixel around everything drawn so far: it keeps a figure apart from any background."""
        padded = np.pad(self.mask, 1)
        border = (
            padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        ) & ~self.mask
        self.rgb[border] = colour
        self.mask |= border
        return self


@cache
def icon(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The icon of an object: picture (16, 16, 3) uint8 and mask (16, 16). Raises UserError for a name outside the bank."""
    if name not in ICONS:
        raise UserError(f"no icon is drawn for {name!r}; expected one of {', '.join(ICONS)}")
    grid = scale2x(ICONS[name])
    colours = np.zeros((128, 3), dtype=np.uint8)
    for letter, colour in PALETTE.items():
        colours[ord(letter)] = colour
    return colours[grid], grid > 0


def write(text: str) -> np.ndarray:
    """A line of text as a mask (14, 12 * letters - 2). Raises UserError for a letter that the font lacks."""
    mask = np.zeros((14, GLYPH_W * len(text) - 2), dtype=bool)
    for i, letter in enumerate(text.lower()):
        if letter != " ":
            if letter not in FONT:
                raise UserError(
                    f"the font has no {letter!r} (in {text!r}); use letters a-z and spaces"
                )
            mask[:, GLYPH_W * i : GLYPH_W * i + 10] = FONT[letter]
    return mask


@dataclass(frozen=True)
class Pose:
    """Where a person's parts are, in pixels right of and below the point between the feet (so up is negative).

    `hands` and `feet`: the far one, the near one. `lean` moves the shoulders. `thing` is the top left corner of the object (even: its icon
    survives halving), moved by `sway` from step to step; hands with `grip` follow it. `marks` are strokes that tell motion from rest.
    """

    hands: tuple[Point, Point]
    feet: tuple[Point, Point]
    lean: int
    grip: bool
    thing: Point
    sway: tuple[Point, ...]
    marks: tuple[tuple[Point, Point], ...]


_POSES = """
verb  | far hand, near hand | far foot, near foot | lean grip | thing   | sway, one pair per step
idle  |  -6  -9    6  -9    |  -3  0    3  0      |   0   0   |   0   0 |  0  0   0  0   0  0   0  0   0  0
lift  |  -6 -26    6 -26    |  -3  0    3  0      |   0   1   |  -8 -42 |  0  0   0  0   0  2   0  2   0  0
kick  |  -9 -13    6 -17    |  -2  0   12 -6      |  -3   0   |  20 -18 |  0  0   2 -2   4 -4   2 -2   0  0
hold  |   6 -16    7  -8    |  -3  0    3  0      |   0   1   |   4 -20 |  0  0   0  0   0  0   0  2   0  2
drop  |  -6  -9   13 -28    |  -3  0    3  0      |   0   0   |  10 -18 |  0 -2   0 -2   0  0   0  0   0  2
throw |  -9 -12    9 -24    |  -6  0    5  0      |   2   0   |  26 -42 |  0  2   0  0   2  0   2  0   0  2
push  |  13 -13   13  -7    |  -8  0   -1  0      |   6   1   |  14 -16 |  0  0   0  0   2  0   2  0   0  0
pull  |   6 -15    8 -12    |   5  0   10  0      |  -6   1   |  26 -16 |  0  0   0  0  -2  0  -2  0   0  0
shake |  -6  -9   11 -19    |  -3  0    3  0      |   0   1   |  14 -32 | -2  0   2  0  -2  0   2  0   0  0
"""
# Strokes of motion: from, to.
_MARKS = {
    "kick": "15 -11 18 -14   16 -5 20 -5   15 -1 18 1",
    "drop": "11 -22 11 -24   17 -22 17 -29   23 -22 23 -26",
    "throw": "12 -29 13 -31   16 -34 18 -35   22 -37 24 -37",
    "push": "-13 -19 -7 -19   -16 -13 -9 -13",
    "shake": "33 -35 36 -31   36 -31 36 -25   36 -25 33 -21   13 -37 17 -35   17 -35 21 -37   21 -37 25 -35",
}


def _pairs(text: str) -> tuple[Point, ...]:
    numbers = [int(n) for n in text.split()]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _parse_pose(line: str) -> tuple[str, Pose]:
    name, hands, feet, flags, thing, sway = (part.strip() for part in line.split("|"))
    (far_hand, near_hand) = _pairs(hands)
    (far_foot, near_foot) = _pairs(feet)
    ((lean, grip),) = _pairs(flags)
    ends = _pairs(_MARKS.get(name, ""))
    strokes = tuple(zip(ends[::2], ends[1::2], strict=True))
    return name, Pose(
        (far_hand, near_hand),
        (far_foot, near_foot),
        lean,
        bool(grip),
        _pairs(thing)[0],
        _pairs(sway),
        strokes,
    )


POSES = dict(_parse_pose(line) for line in _POSES.strip().split("\n")[1:])

_ORIGIN = (18, 44)  # of a pose, in its cell
SKIN = (rgb("#f3c9a2"), rgb("#b0764e"), rgb("#e2a97a"), rgb("#7c5138"))
_TROUSERS, _SHOE, _STRAW = rgb("#4a4e69"), rgb("#33303f"), rgb("#e9cf8c")
HAIR = (rgb("#5b3a29"), rgb("#3a2a2a"), rgb("#b5651d"), rgb("#d9d4cc"))


def _at(point: Point, by: Point = (0, 0)) -> Point:
    return _ORIGIN[0] + point[0] + by[0], _ORIGIN[1] + point[1] + by[1]


def _draw_head(canvas: Canvas, track: int, x: int, y: int) -> None:
    """A head at (x, y) that looks right; each track has a silhouette of its own: flat cap, long hair, straw hat, bun and beard."""
    skin, hair = SKIN[track], HAIR[track]
    if track == 1:
        canvas.line((x - 3, y - 1), (x - 4, y + 6), 6, hair)
    if track == 3:
        canvas.dot((x - 4, y - 5), 5, hair)
    canvas.dot((x, y), 10, hair)
    canvas.dot((x + 1, y + 1), 9, skin)
    if track == 0:
        canvas.line((x - 3, y - 4), (x + 2, y - 4), 4, hair)
        canvas.line((x + 2, y - 3), (x + 7, y - 3), 2, hair)
    if track == 2:
        canvas.line((x - 7, y - 3), (x + 7, y - 3), 2, _STRAW)
        canvas.line((x - 2, y - 5), (x + 2, y - 5), 4, _STRAW)
    if track == 3:
        canvas.line((x, y + 4), (x + 3, y + 4), 4, hair)
    canvas.box(x + 1, y - 1, 1, 2, INK)
    canvas.box(x + 4, y - 1, 1, 2, INK)


def _draw_person(
    track: int, clothes: Rgb, pose: Pose, hands: tuple[Point, Point], bob: int
) -> Canvas:
    canvas, shade = Canvas(CELL_H, CELL_W), mix(clothes, INK, 30)
    shoulders = [_at((pose.lean + dx, -15 + bob)) for dx in (-3, 3)]
    canvas.line(shoulders[0], hands[0], 4, shade)
    canvas.dot(hands[0], 4, SKIN[track])
    for hip, foot in zip((-2, 2), pose.feet, strict=True):
        canvas.line(_at((hip, -8)), _at(foot, (0, -2)), 4, _TROUSERS)
        canvas.line(_at(foot, (0, -1)), _at(foot, (2, -1)), 3, _SHOE)
    canvas.line(_at((0, -8)), _at((pose.lean, -14 + bob)), 9, clothes)
    _draw_head(canvas, track, *_at((pose.lean * 4 // 3, -22 + bob)))
    canvas.line(shoulders[1], hands[1], 4, shade)
    canvas.dot(hands[1], 4, SKIN[track])
    return canvas.outline()


def _draw_thing(name: str, pose: Pose, corner: Point, hand: Point) -> Canvas:
    """The object with its top left at `corner`, the strokes of motion, and the rope of who pulls."""
    behind, thing = Canvas(CELL_H, CELL_W), Canvas(CELL_H, CELL_W)
    for a, b in pose.marks:
        behind.line(_at(a), _at(b), 2, CREAM)
    if pose is POSES["pull"]:
        behind.line(hand, (corner[0] + 4, corner[1] + 8), 2, PALETTE["t"])
    thing.stamp(*icon(name), *corner)
    behind.outline().stamp(thing.outline().rgb, thing.mask, 0, 0)
    return behind


def sprite(track: int, colour: str, verb: str, thing: str, step: int) -> Canvas:
    """A person in a cell: role index `track` in clothes of `colour`, doing `verb` ("idle" for none) with the object `thing`, step 0..4.

    Raises UserError for an object without an icon.
    """
    pose, skin = POSES[verb], SKIN[track]
    moved = pose.sway[step % STEPS]
    hands = (
        (_at(pose.hands[0], moved), _at(pose.hands[1], moved))
        if pose.grip
        else (_at(pose.hands[0]), _at(pose.hands[1]))
    )
    canvas = _draw_person(track, COLOUR_RGB[colour], pose, hands, bob=int(step % STEPS in (1, 2)))
    if verb != "idle":
        top = _draw_thing(thing, pose, _at(pose.thing, moved), hands[1])
        canvas.stamp(top.rgb, top.mask, 0, 0)
    for hand in hands if pose.grip else ():
        canvas.dot(hand, 4, skin)  # hands lie over what they hold
    return canvas
