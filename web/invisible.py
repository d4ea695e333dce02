"""The characters that show nothing. A name of these alone is refused as blank.

They are the characters of Unicode 16 with the property White_Space or Default_Ignorable_Code_Point
or the general category Cc or Cf, and five that are blank by their names: U+2800 BRAILLE PATTERN
BLANK, U+13441 and U+13442 EGYPTIAN HIEROGLYPH FULL BLANK and HALF BLANK, U+16FE4 KHITAN SMALL
SCRIPT FILLER, U+1D159 MUSICAL SYMBOL NULL NOTEHEAD. NUL is left out, because no text may hold it.
"""

# The inside of a character class of a regular expression. The characters are listed, because
# clients read the expression in /openapi.json, and \s and \p{...} differ between languages. Those
# above U+FFFF stand as they are, because Python and JavaScript have no escape in common for them.
INVISIBLE = (
    r"\x01-\x20\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680"
    r"\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U00013441\U00013442\U00016fe4\U0001bca0-\U0001bca3"
    "\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
