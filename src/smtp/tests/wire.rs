//! The decoders against slow and obvious ones, and the table of smuggling attempts.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::smtp::body::Body;
use crate::smtp::reason::Reason;
use crate::smtp::wire::{Framing, Line, LineEnds, Lines, Progress};

/// A message, and what follows its end.
type Decoded = (Result<Vec<u8>, Reason>, Vec<u8>);

/// Feeds pieces; returns the message and what follows its end, or `None` if it does not end.
fn decode(mut framing: Framing, limit: u64, pieces: &[&[u8]]) -> Option<Decoded> {
    let mut body = Body::new(limit, 0);
    let mut buffer = BytesMut::new();
    let mut pieces = pieces.iter();
    loop {
        buffer.extend_from_slice(pieces.next()?);
        if framing.transfer(&mut buffer, &mut body) == Progress::End {
            let rest = pieces.fold(buffer.to_vec(), |rest, piece| [&rest, *piece].concat());
            return Some((body.finish(), rest));
        }
        assert!(buffer.is_empty(), "everything is consumed");
    }
}

fn pieces<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

/// DATA up to its end, and what follows.
fn until_the_end(input: &[u8]) -> Option<(&[u8], &[u8])> {
    if let Some(rest) = input.strip_prefix(b".\r\n") {
        return Some((&input[..0], rest));
    }
    let end = input.windows(5).position(|window| window == b"\r\n.\r\n")?;
    Some((&input[..end + 2], &input[end + 5..]))
}

/// Line ends mended octet by octet: CRs are counted until it is known what follows them.
fn slow_mended(raw: &[u8]) -> Result<Vec<u8>, Reason> {
    let mut content = Vec::new();
    let mut carriage_returns = 0;
    for octet in raw {
        match octet {
            b'\r' => carriage_returns += 1,
            b'\n' => {
                content.extend_from_slice(b"\r\n");
                carriage_returns = 0;
            }
            _ if carriage_returns > 0 => return Err(Reason::BareNewline),
            _ => content.push(*octet),
        }
    }
    if carriage_returns > 0 { Err(Reason::BareNewline) } else { Ok(content) }
}

/// DATA whose line ends are mended, line after line.
fn slow_mended_data(input: &[u8]) -> Option<Decoded> {
    let (raw, rest) = until_the_end(input)?;
    let message = slow_mended(raw).map(|mended| {
        let lines = mended.split_inclusive(|octet| *octet == b'\n');
        let unstuffed = lines.map(|line| match line.strip_prefix(b".") {
            Some(stuffed) if stuffed != b"\r\n" => stuffed,
            _ => line,
        });
        unstuffed.collect::<Vec<_>>().concat()
    });
    Some((message, rest.to_vec()))
}

/// DATA as the RFC's sentences say it, one after the other.
fn slow_data(input: &[u8]) -> Option<Decoded> {
    let (raw, rest) = until_the_end(input)?;
    let bare = (0..raw.len()).any(|at| match raw[at] {
        b'\r' => raw.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || raw[at - 1] != b'\r',
        _ => false,
    });
    let mut content = Vec::new();
    let mut line_start = true;
    for (at, byte) in raw.iter().enumerate() {
        if !(line_start && *byte == b'.') {
            content.push(*byte);
        }
        line_start = raw[..=at].ends_with(b"\r\n");
    }
    let message = if bare { Err(Reason::BareNewline) } else { Ok(content) };
    Some((message, rest.to_vec()))
}

/// Bytes in which what matters is frequent.
fn hostile(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = select(vec!["\r", "\n", "\r\n", ".", "..", "a", "bc", "\0", "\r\n.\r\n", "\r\n."]);
    vec(piece, 0..length).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Where a message is cut on its way.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(0..6_usize, 0..40)
}

proptest! {
    #[test]
    fn data_is_what_the_slow_decoders_say(mut input in hostile(40), cuts in cuts()) {
        input.extend(b"\r\n.\r\nQUIT\r\n");
        for (line_ends, expected) in [
            (LineEnds::Strict, slow_data(&input)),
            (LineEnds::Mended, slow_mended_data(&input)),
        ] {
            prop_assert!(expected.is_some());
            for pieces in [vec![input.as_slice()], pieces(&input, &cuts)] {
                prop_assert_eq!(&decode(Framing::dots(line_ends), 1 << 20, &pieces), &expected);
            }
        }
    }

    /// However a message is cut into chunks and the chunks into reads, and the limit counts what is
    /// kept of it.
    #[test]
    fn mended_chunks_are_what_the_slow_mender_says(
        input in hostile(40),
        chunks in vec(0..9_usize, 0..20),
        cuts in cuts(),
    ) {
        let expected = slow_mended(&input);
        let kept = expected.as_ref().map_or(1 << 20, Vec::len) as u64;
        let mut body = Body::new(kept, 0);
        let mut buffer = BytesMut::new();
        for chunk in pieces(&input, &chunks) {
            let mut framing = Framing::chunk(chunk.len() as u64);
            for piece in pieces(chunk, &cuts) {
                buffer.extend_from_slice(piece);
                framing.transfer(&mut buffer, &mut body);
            }
        }
        prop_assert_eq!(body.finish(), expected);
    }

    /// The first fault is the same however the bytes are cut, also where the limit is hit.
    #[test]
    fn the_first_fault_does_not_depend_on_cuts(
        input in hostile(30),
        limit in 0..40_u64,
        size in 0..40_u64,
        cuts in cuts(),
    ) {
        for framing in [
            || Framing::dots(LineEnds::Strict),
            || Framing::dots(LineEnds::Mended),
            || Framing::chunk(25),
        ] {
            let whole = decode(framing(), limit, &[&input]);
            prop_assert_eq!(decode(framing(), limit, &pieces(&input, &cuts)), whole);
        }
        let two = |cut: usize| {
            let mut body = Body::new(limit, size);
            let (first, second) = input.split_at(cut.min(input.len()));
            body.append_mended(first);
            body.append_mended(second);
            body.finish()
        };
        for cut in &cuts {
            prop_assert_eq!(two(*cut), two(0));
        }
    }

    #[test]
    fn dot_stuffing_is_undone(
        lines in vec("[.a\\x01-\\x09\\x80]{0,9}", 0..20),
        cuts in cuts(),
    ) {
        let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut stuffed = String::new();
        for line in &lines {
            stuffed += if line.starts_with('.') { "." } else { "" };
            stuffed += &format!("{line}\r\n");
        }
        stuffed += ".\r\n";
        for line_ends in [LineEnds::Strict, LineEnds::Mended] {
            let pieces = pieces(stuffed.as_bytes(), &cuts);
            let decoded = decode(Framing::dots(line_ends), 1 << 20, &pieces);
            prop_assert_eq!(decoded, Some((Ok(message.clone().into_bytes()), Vec::new())));
        }
    }

    #[test]
    fn a_chunk_is_counted_off(
        input in vec(any::<u8>(), 0..60),
        size in 0..60_usize,
        cuts in cuts(),
    ) {
        let decoded = decode(Framing::chunk(size as u64), 1 << 20, &pieces(&input, &cuts));
        prop_assert_eq!(decoded.is_some(), size <= input.len());
        if let Some((message, rest)) = decoded {
            let content = &input[..size];
            prop_assert_eq!(rest, &input[size..]);
            prop_assert_eq!(message, slow_mended(content));
        }
    }

    #[test]
    fn lines_are_what_the_slow_splitter_says(
        input in hostile(40),
        limit in 3..12_usize,
        cuts in cuts(),
    ) {
        let expected = slow_lines(&input, limit);
        prop_assert_eq!(split(&pieces(&input, &cuts), limit), &expected[..]);
        prop_assert_eq!(split(&[&input], limit), &expected[..]);
    }
}

fn split(pieces: &[&[u8]], limit: usize) -> Vec<Line> {
    let mut lines = Lines::default();
    let mut buffer = BytesMut::new();
    let mut split = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        split.extend(std::iter::from_fn(|| lines.next(&mut buffer, limit)));
        assert!(buffer.len() <= limit, "nothing more is kept than a line");
    }
    split
}

/// Byte after byte.
fn slow_lines(input: &[u8], limit: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let (mut line, mut refused) = (Vec::new(), false);
    for byte in input {
        let after_cr = line.last() == Some(&b'\r');
        line.push(*byte);
        let ended = after_cr && *byte == b'\n';
        if !refused {
            let bare = *byte == 0 || after_cr != (*byte == b'\n');
            let fault = match () {
                () if bare => Some(Line::BadEnding),
                () if !ended && line.len() >= limit => Some(Line::TooLong),
                () => None,
            };
            refused = fault.is_some();
            lines.extend(fault);
        }
        if ended {
            line.truncate(line.len() - 2);
            let line = std::mem::take(&mut line);
            if !std::mem::take(&mut refused) {
                lines.push(Line::Command(line));
            }
        }
    }
    lines
}

const BARE: Result<&[u8], Reason> = Err(Reason::BareNewline);
const BOTH: &[LineEnds] = &[LineEnds::Strict, LineEnds::Mended];
const STRICT: &[LineEnds] = &[LineEnds::Strict];
const MENDED: &[LineEnds] = &[LineEnds::Mended];

/// Where DATA ends, which is where `AFTER` begins, and what a message with it is worth, whole or
/// octet by octet.
fn check_data(all: &[LineEnds], input: &[u8], expected: Result<&[u8], Reason>) {
    let whole = [input, b"AFTER"].concat();
    let every_byte: Vec<&[u8]> = whole.chunks(1).collect();
    for line_ends in all {
        for pieces in [&[whole.as_slice()][..], &every_byte] {
            let decoded = decode(Framing::dots(*line_ends), 1 << 20, pieces);
            let (message, rest) = decoded.unwrap_or_else(|| panic!("no end: {input:?}"));
            let message = message.as_deref().map_err(|reason| *reason);
            assert_eq!(message, expected, "{line_ends:?} {input:?}");
            assert_eq!(rest, b"AFTER", "{line_ends:?} {input:?}");
        }
    }
}

#[test]
fn only_crlf_dot_crlf_ends_data() {
    for (line_ends, input, expected) in [
        (BOTH, b".\r\n".as_slice(), Ok(b"".as_slice())),
        (BOTH, b"\r\n.\r\n", Ok(b"\r\n")),
        (BOTH, b"a\r\n.\r\n", Ok(b"a\r\n")),
        (BOTH, b"..x\r\n.\r\n", Ok(b".x\r\n")),
        (BOTH, b"a\r\n..\r\n.\r\n", Ok(b"a\r\n.\r\n")),
        (BOTH, b".x\r\n.\r\n", Ok(b"x\r\n")),
        (BOTH, b"a\0b\r\n.\r\n", Ok(b"a\0b\r\n")),
        // From a network whose line ends are mended it is one message, which goes on with CR LF.
        (MENDED, b"a\nb\r\n.\r\n", Ok(b"a\r\nb\r\n")),
        (MENDED, b"\n\n\r\n.\r\n", Ok(b"\r\n\r\n\r\n")),
        (MENDED, b"soft=\r\r\nbreak\r\r\r\n.\r\n", Ok(b"soft=\r\nbreak\r\n")),
        (MENDED, b"a\n.\nb\r\n.\r\n", Ok(b"a\r\n.\r\nb\r\n")),
        (MENDED, b"a\n.\r\nb\r\n.\r\n", Ok(b"a\r\n.\r\nb\r\n")),
        (MENDED, b"a\r\n.\nb\r\n.\r\n", Ok(b"a\r\n.\r\nb\r\n")),
        (MENDED, b"a\r\n.\r\r\nb\r\n.\r\n", Ok(b"a\r\n.\r\nb\r\n")),
        (MENDED, b".\nb\r\n.\r\n", Ok(b".\r\nb\r\n")),
        (MENDED, b"a\n.\r\n.\r\n", Ok(b"a\r\n.\r\n")),
        (MENDED, b"a\n..b\nc\n...\r\n.\r\n", Ok(b"a\r\n.b\r\nc\r\n..\r\n")),
        // A CR alone is no line end that anybody could mend.
        (BOTH, b"a\rb\r\n.\r\n", BARE),
        (BOTH, b"\r.\r\n\r\n.\r\n", BARE),
        (BOTH, b"a\r\n.\rb\r\n.\r\n", BARE),
        (BOTH, b"a\n.\rb\r\n.\r\n", BARE),
        (BOTH, b"a\r\rb\r\n.\r\n", BARE),
        (BOTH, b"\r\r.\r\n\r\n.\r\n", BARE),
    ] {
        check_data(line_ends, input, expected);
    }
    let long = [b"x".repeat(1 << 20).as_slice(), b"\r\n"].concat();
    let too_long = decode(Framing::dots(LineEnds::Strict), 1 << 20, &[&long, b".\r\n"]);
    assert_eq!(too_long, Some((Err(Reason::MessageTooBig), Vec::new())));
    let fits = decode(Framing::dots(LineEnds::Strict), (1 << 20) + 2, &[&long, b".\r\n"]);
    assert_eq!(fits, Some((Ok(long), Vec::new())));
}

/// Each of these has been taken for the end of DATA by some server. Here the message ends at its
/// true end and is refused, so that nothing in it is ever relayed to such a server.
#[test]
fn smuggling_is_refused_after_the_true_end() {
    for not_the_end in [
        b"\n.\n".as_slice(),
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\n.\r",
        b"\r.\n",
        b"\r\r\n.\r\n",
        b"\r\n\r.\r\n",
        b"\r\n.\0\r\n\n",
    ] {
        // A second CR LF, because `\r\r\n.\r\n` does end with the legal sequence.
        let ends = not_the_end.ends_with(b"\r\n.\r\n") && not_the_end != b"\r\n\r.\r\n";
        let smuggled = b"MAIL FROM:<x@example.org>\r\n.\r\n".as_slice();
        let tail = if ends { b"".as_slice() } else { smuggled };
        check_data(STRICT, &[b"a", not_the_end, tail].concat(), BARE);
    }
}

#[test]
fn nothing_but_the_end_ends_data() {
    for unfinished in [
        b"".as_slice(),
        b".",
        b".\r",
        b".\n",
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\n..\r\n",
        b"\r\n. \r\n",
    ] {
        for line_ends in BOTH {
            let decoded = decode(Framing::dots(*line_ends), 100, &[unfinished]);
            assert_eq!(decoded, None, "{unfinished:?}");
        }
    }
}

fn check_line(input: &[u8], expected: &[Line]) {
    assert_eq!(split(&[input], 20), expected, "{input:?}");
}

#[test]
fn only_crlf_ends_a_line() {
    let command = |text: &str| Line::Command(text.as_bytes().to_vec());
    check_line(b"NOOP\r\nQUIT\r\n", &[command("NOOP"), command("QUIT")]);
    check_line(b"\r\n", &[command("")]);
    check_line(b"NOOP\nQUIT\r\nRSET\r\n", &[Line::BadEnding, command("RSET")]);
    check_line(b"MA\rIL\r\nRSET\r\n", &[Line::BadEnding, command("RSET")]);
    check_line(b"NO\0OP\r\nRSET\r\n", &[Line::BadEnding, command("RSET")]);
    check_line(b"NOOP\r\r\nRSET\r\n", &[Line::BadEnding, command("RSET")]);
    check_line(b"NOOP\r", &[]);
    check_line(b"NOOP\n", &[Line::BadEnding]);
}

/// A line of 9000 octets in one read is as long as one in many, and its tail is no command.
#[test]
fn a_long_line_is_refused_once_and_dropped_to_its_end() {
    let exact = [b"x".repeat(18).as_slice(), b"\r\n"].concat();
    check_line(&exact, &[Line::Command(b"x".repeat(18))]);
    let one_more = [b"x".repeat(19).as_slice(), b"\r\nRSET\r\n"].concat();
    check_line(&one_more, &[Line::TooLong, Line::Command(b"RSET".to_vec())]);
    let long = [b"x".repeat(9000).as_slice(), b"\nQUIT\0\r\nRSET\r\n"].concat();
    check_line(&long, &[Line::TooLong, Line::Command(b"RSET".to_vec())]);
}

#[test]
fn a_refused_body_holds_no_memory() {
    let mut body = Body::new(10, 10);
    body.append(b"0123456789");
    assert_eq!(body.len(), 10);
    body.append(b"x");
    assert_eq!((body.len(), body.refusal()), (0, Some(Reason::MessageTooBig)));
    body.append(&[0; 4096]);
    assert_eq!(body.len(), 0);
    assert_eq!(body.finish(), Err(Reason::MessageTooBig));
}

/// However its octets are cut; and what comes after is not kept.
#[test]
fn a_header_section_that_is_too_long_is_known_before_its_end() {
    const LIMIT: usize = 40;
    let check = |section: &str, rest: &str, expected: Option<Reason>| {
        let message = format!("{section}{rest}");
        for piece in [1, 7, message.len()] {
            for mend in [false, true] {
                let mut body = Body::new(1 << 20, 0).with_header_limit(LIMIT);
                for octets in message.as_bytes().chunks(piece) {
                    if mend { body.append_mended(octets) } else { body.append(octets) }
                }
                assert_eq!(body.refusal(), expected, "{message:?} by {piece}");
                let kept = if expected.is_some() { 0 } else { message.len() };
                assert_eq!(body.len(), kept, "{message:?} by {piece}");
            }
        }
    };
    let section = |octets: usize| format!("A: {}\r\n", "x".repeat(octets - 5));
    let body = "line\r\n".repeat(100);
    let too_big = Some(Reason::HeaderTooBig);
    check(&section(LIMIT), &format!("\r\n{body}"), None);
    check(&section(LIMIT + 1), &format!("\r\n{body}"), too_big);
    check(&section(20), &section(20).repeat(50), too_big);
    check(&section(20), &format!("\r\n{}", body.repeat(10)), None);
    check("\r\n", &body, None);
    check("", &"x".repeat(200), too_big);
    // Whether a short message is too long is seen when all of it is there.
    check(&section(LIMIT), "", None);
}

#[test]
fn a_chunk_is_refused_before_it_is_read() {
    let mut body = Body::new(10, 0);
    body.announce(u64::MAX);
    assert_eq!(body.refusal(), Some(Reason::MessageTooBig));
}

/// What SIZE= promises is believed up to a mebibyte; the rest when it comes.
#[test]
fn memory_is_not_set_aside_on_a_promise() {
    let mut body = Body::new(40 << 20, 40 << 20);
    body.append(b"x");
    let content = body.finish().expect("whole");
    assert!(content.capacity() <= 1 << 20, "{}", content.capacity());
}
