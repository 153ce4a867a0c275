//! What others have written, for a line of a text of ours.

use std::borrow::Cow;
use std::fmt::Write;

use super::Address;
use super::invisible::{is_invisible, spoils_line};

/// A text on one line, from left to right: what some reader takes for the end of a line (the controls,
/// U+2028 and U+2029 of Unicode's annex 14) becomes a space, as does what turns or hides the text
/// around it. What letters and pictures are put together with stays.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.into();
    }
    text.chars().map(|c| if spoils_line(c) { ' ' } else { c }).collect()
}

/// The first characters of a text on one line, for an event, a report or a reply, which need not
/// take all that others have written.
pub fn excerpt_on_one_line(text: &str, max_chars: usize) -> String {
    let end = text.char_indices().nth(max_chars).map_or(text.len(), |(at, _)| at);
    on_one_line(text.get(..end).unwrap_or_default()).into_owned()
}

/// An address on one line: a quoted local-part may have anything in it, and what nobody sees is
/// written as RFC 6533 §3 writes it, so that no two addresses look alike.
pub fn address_on_one_line(address: &Address) -> String {
    let text = address.to_string();
    if text.is_ascii() {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c != ' ' && is_invisible(c) {
            // Writing to a string cannot fail.
            write!(line, "\\x{{{:X}}}", u32::from(c)).ok();
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_a_line_turns_it_or_hides_in_it() {
        for (text, expected) in [
            ("plain", "plain"),
            (
                "größer, 日本\u{3000}語, 👨\u{200d}👩 ❤\u{fe0f} a\u{a0}b",
                "größer, 日本\u{3000}語, 👨\u{200d}👩 ❤\u{fe0f} a\u{a0}b",
            ),
            ("a\u{2028}To: evil@x", "a To: evil@x"),
            ("a\u{2029}b\u{85}c\u{b}d\u{1c}e\r\nf\0", "a b c d e  f "),
            ("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{3164}f", "a b c d e f"),
        ] {
            assert_eq!(on_one_line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_excerpt_has_so_many_characters_and_no_more() {
        for (text, max_chars, expected) in [
            ("", 3, ""),
            ("abc", 3, "abc"),
            ("abcd", 3, "abc"),
            ("größer", 3, "grö"),
            ("a\r\nb", 3, "a  "),
            ("日本語", 0, ""),
        ] {
            assert_eq!(excerpt_on_one_line(text, max_chars), expected, "{text:?}");
        }
    }

    #[test]
    fn an_address_is_one_word_that_is_seen() {
        for (text, expected) in [
            ("a@b.test", "a@b.test"),
            ("\"a b\"@b.test", "\"a b\"@b.test"),
            ("用户@b.test", "用户@b.test"),
            ("\"a\u{2028} b\"@b.test", "\"a\\x{2028} b\"@b.test"),
            ("a\u{200b}\u{202e}@b.test", "a\\x{200B}\\x{202E}@b.test"),
        ] {
            let address = Address::parse(text).expect("an address");
            assert_eq!(address_on_one_line(&address), expected, "{text:?}");
        }
    }
}
