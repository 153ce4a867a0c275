//! The characters that no screen shows: one table for all who must look out for them, and who looks
//! out for which.

/// What a character without a shape of its own does in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It hides, ends a line or turns its direction, or is a blank that is no space. No text needs
    /// it.
    Deceives,
    /// Letters and pictures are put together with it: joiners, marks of direction for one place,
    /// variation selectors, the tags of flags, soft hyphens.
    Joins,
    /// It stands where something could not be read or shown.
    StandsIn,
    /// It is a sign of one script, which is seen where that script can be shown.
    OfScript,
}

/// The role of a character that Unicode calls a format character or default-ignorable, or a blank
/// that is no space; `None` for all others.
fn role(c: char) -> Option<Role> {
    Some(match c {
        '\u{34f}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180e}'..='\u{180f}'
        | '\u{200b}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e001f}'
        | '\u{e0080}'..='\u{e00ff}'
        | '\u{e01f0}'..='\u{e0fff}' => Role::Deceives,
        '\u{ad}'
        | '\u{61c}'
        | '\u{180b}'..='\u{180d}'
        | '\u{200c}'..='\u{200f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{e0020}'..='\u{e007f}'
        | '\u{e0100}'..='\u{e01ef}' => Role::Joins,
        '\u{fffc}' | '\u{fffd}' => Role::StandsIn,
        '\u{600}'..='\u{605}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' => Role::OfScript,
        _ => return None,
    })
}

/// Whether nothing of a character is seen, so that two names, or two addresses, can look like one:
/// controls and white space are such too. IDNA drops some of them, and then two readers could find
/// two domains in what looks like one.
pub(crate) fn is_invisible(c: char) -> bool {
    let is_unseen = matches!(role(c), Some(Role::Deceives | Role::Joins | Role::StandsIn));
    is_unseen || c.is_control() || c.is_whitespace()
}

/// Whether a character ends a line, or hides or turns others in it (the controls, and U+2028 and
/// U+2029 of Unicode's annex 14). What writing needs does not.
pub(super) fn spoils_line(c: char) -> bool {
    c.is_control() || role(c) == Some(Role::Deceives)
}

/// Whether a character on a screen makes a word look like another: it has no shape, or none without
/// its script, and joins no pictures either.
pub(crate) fn disguises(before: Option<char>, c: char) -> bool {
    let is_shapeless = matches!(role(c), Some(Role::Deceives | Role::Joins | Role::OfScript));
    is_shapeless && !is_part_of_picture(before, c)
}

/// Whether a character joins two pictures to one, or says that the one before is to be shown as a
/// picture.
fn is_part_of_picture(before: Option<char>, c: char) -> bool {
    let is_picture = |before| matches!(before, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}');
    match c {
        '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(is_picture),
        '\u{200d}' => before.is_some_and(|before| is_picture(before) || before == '\u{fe0f}'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_looks_out_for_what_deceives_it() {
        for (chars, is_unseen, spoils, is_disguise) in [
            ("aß用👨", false, false, false),
            (" \u{a0}\u{3000}", true, false, false),
            ("\t\r\n\0\u{1b}\u{85}", true, true, false),
            ("\u{2028}\u{202e}\u{200b}\u{feff}\u{3164}\u{34f}\u{e0001}", true, true, true),
            ("\u{200d}\u{200f}\u{fe0f}\u{ad}\u{e0041}\u{e0100}", true, false, true),
            ("\u{fffc}\u{fffd}", true, false, false),
            ("\u{600}\u{6dd}\u{13430}", false, false, true),
        ] {
            for c in chars.chars() {
                assert_eq!(is_invisible(c), is_unseen, "{c:?}");
                assert_eq!(spoils_line(c), spoils, "{c:?}");
                assert_eq!(disguises(Some('a'), c), is_disguise, "{c:?}");
            }
        }
    }

    #[test]
    fn pictures_are_joined() {
        for (before, c, is_disguise) in [
            (None, '\u{200d}', true),
            (Some('👩'), '\u{200d}', false),
            (Some('\u{fe0f}'), '\u{200d}', false),
            (Some('❤'), '\u{fe0f}', false),
            (Some('a'), '\u{fe0f}', true),
            (Some('👩'), '\u{200b}', true),
        ] {
            assert_eq!(disguises(before, c), is_disguise, "{before:?} {c:?}");
        }
    }
}
