//! Where a file has its name, and how readers make it out.

use super::*;

#[test]
fn a_name_is_found_wherever_it_stands() {
    for (fields, expected) in [
        ("Content-Disposition: attachment; filename=\"a.txt\"", None),
        ("Content-Disposition: attachment; filename=exe", None),
        ("Content-Disposition: attachment; filename=exe.txt", None),
        ("Content-Disposition: attachment; filename=a.exe", Some("a.exe")),
        ("Content-Disposition: inline; filename=\"My Tool.EXE\"", Some("My Tool.EXE")),
        ("Content-Type: application/x; name=\"b.Js\"", Some("b.Js")),
        (
            "Content-Type: text/plain; name=c.vbs\r\n\
             Content-Disposition: attachment; filename=c.txt",
            Some("c.vbs"),
        ),
        (
            "Content-Type: text/plain; name=c.txt\r\n\
             Content-Disposition: attachment;\r\n\tfilename=\"c.vbs\"",
            Some("c.vbs"),
        ),
        ("Content-Disposition: attachment; filename*=utf-8''%C3%BCber%2Eexe", Some("über.exe")),
        (
            "Content-Disposition: attachment; filename*0=\"long.e\"; filename*1=\"xe\"",
            Some("long.exe"),
        ),
        ("Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.exe", Some("a.exe")),
        ("Content-Disposition: attachment; filename=\"=?utf-8?b?YS5leGU=?=\"", Some("a.exe")),
        ("Content-Disposition: attachment; filename=\"a.exe.\"", Some("a.exe.")),
        ("Content-Disposition: attachment; filename=\"a.exe . \"", Some("a.exe . ")),
        ("Content-Disposition: attachment; filename*=utf-8''a.exe%00.txt", Some("a.exe .txt")),
    ] {
        check(&with_part(fields), expected);
    }
}

#[test]
fn a_name_that_only_a_lenient_reader_finds_counts() {
    for (field, name) in [
        ("; filename=a.exe", "a.exe"),
        ("filename=a.exe", "a.exe"),
        ("attachment filename=a.exe", "a.exe"),
        ("attachment; filename(c)=a.exe", "a.exe"),
        ("attachment; filename=a.exe more", "a.exe"),
        ("attachment; filename=\"=?utf-8?q?a=2E?= =?utf-8?q?exe?=\"", "a.exe"),
        ("attachment; filename*=utf-16''a%00.%00e%00x%00e%00", "a.exe"),
        ("attachment; filename=\"a.exe\u{a0}\"", "a.exe\u{a0}"),
        ("attachment; filename=\"a.e\u{200b}xe\u{200b}\"", "a.e xe "),
        ("attachment; filename=\"a.exe::$DATA\"", "a.exe::$DATA"),
        ("attachment; filename=\"a.exe/\"", "a.exe/"),
        ("attachment; filename*0*=utf-8''a%2; filename*1*=Eexe", "a.exe"),
        ("attachment; filename*1*=Eexe; filename*0*=utf-8''a%2", "a.exe"),
        ("attachment; filename*0=\"=?utf-8?q?a=2Ee\"; filename*1=\"xe?=\"", "a.exe"),
        ("attachment; name*0=a.; name*1=e; name*2=xe", "a.exe"),
    ] {
        let content = with_part(&format!("Content-Disposition: {field}"));
        let found = objected(&content);
        let Some(Objection::Blocked { name: found, .. }) = found else {
            panic!("{field}: {found:?}")
        };
        assert!(found.ends_with(name), "{field}: {found}");
    }
    for field in [
        "Content-Type: text/x; boundary=a.com",
        "Content-Disposition: attachment; filename=a.exe.txt",
        "Content-Disposition: attachment; filename=\"a.exe b\"",
        "Content-Disposition: attachment; filename=\"100%.txt\"; size=1",
    ] {
        check_sent(&with_part(field));
    }
}

#[test]
fn a_file_in_a_text_has_a_name() {
    for (line, name) in [
        ("begin 644 a.exe", "a.exe"),
        ("begin 0644 a.exe", "a.exe"),
        ("begin 100644 a.exe", "a.exe"),
        ("begin 0 a.exe", "a.exe"),
        ("begin 644  My own Tool.exe ", "My own Tool.exe"),
        ("begin 644\tMy Tool.exe", "My Tool.exe"),
        ("begin \t 644 a.exe\t", "a.exe"),
        ("begin\t644 a.exe", "a.exe"),
        ("BEGIN 644 A.EXE", "A.EXE"),
        ("Begin 755 a.Exe", "a.Exe"),
        ("begin-base64 755 a.exe", "a.exe"),
        ("begin-base64 755  a b.exe", "a b.exe"),
        ("Begin-Base64 755 a.exe", "a.exe"),
        ("begin-encoded 644 YS5leGU=", "a.exe"),
        ("begin-base64-encoded 644 YS5leGU=", "a.exe"),
        ("begin  a.exe", "a.exe"),
        ("begin 644 \"a.exe\"", "\"a.exe\""),
        ("\u{feff}begin 644 a.exe", "a.exe"),
        ("=ybegin line=128 size=9 name=a.exe", "a.exe"),
        ("=ybegin part=1 total=2 line=128 size=9 name=my own tool.exe ", "my own tool.exe"),
    ] {
        check(&format!("Subject: x\r\n\r\n{line}"), Some(name));
        check(&format!("Subject: x\r\n\r\nx\r\n{line}\r\nM\r\n"), Some(name));
        let part = with_part("Content-Type: text/html").replace("AAAA", line);
        check(&part, Some(name));
        let text = base64::MIME.encode(format!("x\r{line}\rM"));
        check(&format!("Content-Transfer-Encoding: base64\r\n\r\n{text}"), Some(name));
        let part = "Content-Type: application/octet-stream\r\n\
                    Content-Transfer-Encoding: X-UUEncode";
        check(&with_part(part).replace("AAAA", line), Some(name));
    }
    let encoded = "Content-Transfer-Encoding: quoted-printable\r\n\r\nbegin=20644 a.e=\r\nxe\r\n";
    check(encoded, Some("a.exe"));
}

#[test]
fn a_text_that_says_begin_is_a_text() {
    for line in [
        "begin 5 days after",
        "begin 5 days after the setup.exe",
        "begin 12 tests of www.example.com",
        "Begin 5 days after example.com",
        "begin with a.exe",
        "begin to a.exe",
        "begin",
        "begin ",
        "begin  ",
        "Begin  a.exe",
        "begin  with the file a.exe",
        "begin 644",
        "begin 644a.exe",
        "begin 999 a.exe",
        "begin644 a.exe",
        "beginning 644 a.exe",
        "begin-again 644 a.exe",
        "begin 644 a.txt",
        "begin-encoded 644 a.exe",
        " begin 644 a.exe",
        "\tbegin 644 a.exe",
        "> begin 644 a.exe",
        "we begin 644 a.exe",
        "=ybegin is how yEnc begins: name a.exe",
        " =ybegin line=128 size=9 name=a.exe",
        "beg\u{131}n 644 a.exe",
    ] {
        check_sent(&format!("Subject: x\r\n\r\nx\r\n{line}\r\nM\r\n"));
    }
    // What no reader takes for a text.
    check_sent(&with_part("Content-Type: image/png").replace("AAAA", "begin 644 a.exe"));
}

/// Some readers end a header section at the first line that is no field.
#[test]
fn a_file_in_a_header_section_has_a_name() {
    let text = "begin 644 a.exe\r\n#0V%T\r\n";
    for content in [
        text.to_owned(),
        format!("Subject: x\r\n{text}"),
        format!("Subject: x\r\n{text}\r\nbody"),
        format!("Subject: x\r\nno field\r\n{text}\r\nbody"),
        with_part(text.trim_end()),
    ] {
        check(&content, Some("a.exe"));
        check_sent(&content.replace("exe", "txt"));
        let whole = base64::MIME.encode(&content);
        for kind in ["Content-Type: message/rfc822", "X: y"] {
            let fields = format!("{kind}\r\nContent-Transfer-Encoding: base64");
            let digest = with_part(&fields).replace("/mixed", "/digest");
            check(&digest.replace("AAAA", &whole), Some("a.exe"));
        }
    }
    check_sent("Subject: x\r\n begin 644 a.exe\r\n\r\nbody");
}

/// A name as any reader may take it: without quotes and backslashes wherever they stand, up to a
/// comma, without what stands around it.
#[test]
fn a_name_counts_in_every_reading_of_its_value() {
    for value in [
        "a.\"exe\"",
        "\"a\".exe",
        "a\".\"exe",
        "\"a.e\" \"xe\"",
        "\"a.exe\"b",
        "a.exe\"b\"",
        "a\";\"b.e\"xe\"",
        "\"a;b.e\\xe\"",
        "a.e\\xe",
        "a.e\\\\xe",
        "\"a.e\\\\xe\"",
        "\\a\\.\\e\\x\\e",
        "a.exe,",
        "a.exe,b",
        "a.\"exe\",b",
        "\"a.exe,\"",
        "<a.exe>",
        "\"<a.exe>\"",
        "\"<a.exe>.\"",
        "a.exe=2E",
        "a.exe\\=2Ea.,exe (c)",
        "a.exe@x",
        "a.exe/x",
        "a.exe[x",
        "a.exe?x",
        "a.exe*x",
        "a.exe'x",
        "(c)a.exe=x",
        "(a.exe)",
        "[a.exe]",
        "a.e(x)xe",
        "a.exe(x)",
        "\"a.exe?\"",
        "\"a.exe*|\"",
        "<=?utf-8?q?a=2Eexe?=>",
        "\"=?utf-8?q?a.e=5Cxe?=\"",
        "\"=?utf-8?q?a.e=22xe=22?=\"",
        "\"=?utf-8?q?a%2Eexe?=\"",
        "\"%3D?utf-8?q?a=2Eexe?=\"",
    ] {
        for (disposition, kind) in [("filename", "name"), ("filename*", "name*")] {
            for field in [
                format!("Content-Disposition: attachment; {disposition}={value}"),
                format!("Content-Type: application/x; {kind}={value}"),
                format!("Content-Type: application/x; {kind}={value}; x=\"y;z\""),
            ] {
                check_blocked(&with_part(&field));
            }
        }
    }
    // An octet that is no UTF-8 is white space for some.
    let mut content = with_part("Content-Type: application/x; name=a.exe~").into_bytes();
    content.iter_mut().filter(|octet| **octet == b'~').for_each(|octet| *octet = 0xa0);
    let found = objection(&content, &Extensions::default());
    assert!(matches!(found, Some(Objection::Blocked { .. })), "{found:?}");
    for value in [
        "\"a.exe, b.txt\"",
        "\"a.exe=x/y@z b.txt\"",
        "C:/a.com/b.txt",
        "\"Plan (a.exe) b.pdf\"",
        "\"see <a.exe> in it.pdf\"",
        "\"it's Bob's 5%.pdf\"",
        "\"a \\\"b.exe\\\" c.pdf\"",
        "C:\\\\files\\\\a.pdf",
        "a,b.pdf",
        "\"What =? is it?.pdf\"",
    ] {
        check_sent(&with_part(&format!("Content-Disposition: attachment; filename={value}")));
    }
}

/// What every reader takes for the same kind of file is that kind, whatever stands in its name.
#[test]
fn an_honest_name_with_an_extension_in_it_is_sent() {
    for parameter in [
        "filename*=utf-8''Offer%20shop.com%20%281%29.pdf",
        "filename*=utf-8''Plan%20(a.com)%20b.pdf",
        "filename=Offer shop.com 1.pdf",
        "filename=\"Offer shop.com (1).pdf\"",
        "filename=\"shop.com, 2.pdf\"; filename*=utf-8''shop.com%2C%202.pdf",
        "filename*0*=utf-8''Offer%20shop.com; filename*1*=%20%281%29.pdf",
        "filename*0=\"Offer shop.com\"; filename*1=\" (1).pdf\"",
        "filename*0=Offer_shop.com; filename*1=munity.pdf",
        "filename*0*=utf-8'en'Offer%20shop.com; filename*1=\" (1).pdf\"",
        "filename*0*=\"utf-8''shop.com\"; filename*1*=\"%20.pdf\"",
        "filename*1=\".pdf\"; filename*0=\"shop.com\"",
        "filename=\"=?utf-8?q?Offer_shop.com_(1).pdf?=\"",
        "filename=\"=?utf-8?q?Offer_shop.com?= =?utf-8?q?_=281=29.pdf?=\"",
        "filename=\"Re: shop.com: offer.pdf\"",
        "filename*=hz-gb-2312''~%7BVPND~%7D.pdf",
        "filename*=HZ''~%7BVPND~%7D%20shop.com%20~%7BVPND~%7D.pdf",
        "filename=\"=?hz-gb-2312?q?~{VPND~}_1.pdf?=\"",
        "filename=\"=?hz?b?fntWUE5Efn0ucGRm?=\"",
        "filename=\"=?hz?q?plain.pdf?=\"",
    ] {
        let blocked = parameter.replace(".pdf", ".com").replace("0ucGRm", "0uY29t");
        with_parameter(parameter).iter().for_each(|content| check_sent(content));
        with_parameter(&blocked).iter().for_each(|content| check_blocked(content));
    }
}

/// Some readers end a value, or a piece of one, where a token ends, and some take not all pieces.
#[test]
fn a_name_that_only_some_readers_end_early_is_not_sent() {
    for parameter in [
        // Python's newest policy reads `Offer shop.com`.
        "filename*=utf-8''Offer%20shop.com%20(1).pdf",
        "filename*=utf-8''a.exe(1).pdf",
        "filename*=utf-8''a.exe[1].pdf",
        "filename*=utf-8''a.exe@x.pdf",
        "filename*=utf-8''a.exe'x.pdf",
        "filename*=utf-8''a.exe,x.pdf",
        "filename=a.exe@x.pdf",
        "filename=a.exe b.pdf",
        // The parser reads `Offer shop.exe`.
        "filename=Offer shop.exe (1).pdf",
        "filename*0*=utf-8''a.ex[x; filename*1*=e",
        "filename*0*=utf-8''a.ex(x); filename*1*=e",
        "filename*0=a.ex,x; filename*1=e",
        "filename*0=a.ex x; filename*1=e",
        "filename*0=a.exe; filename*2=.pdf",
        "filename*1=a.exe; filename*2=.pdf",
        "filename*0=a.exe; filename*0=.pdf",
        "filename*0=a.exe; filename*00=.pdf",
        "filename*0=a.txt; filename*x=a.exe",
        "filename*0=a.txt; filename-x=a.exe",
        "filename*0=a.exe; filename* 1=.pdf",
        "filename*0=a.exe; FILENAME*1=.pdf",
        "filename*0=a.exe; filename*1 =.pdf",
        "filename*0=a.exe; filename *1=.pdf",
        "x-filename*0=a.exe; x-filename*1=.pdf",
        "filename*0*=utf-8''a%2e(x; filename*1*=exe)",
    ] {
        with_parameter(parameter).iter().for_each(|content| check_blocked(content));
    }
    for parameter in [
        "filename*=hz''~%7BVPN~%7D.pdf",
        "filename*=hz''~%7BVPND.pdf",
        "filename*=hz''a.e~%0Axe",
        "filename*=hz''a~~.pdf",
        "filename*=hz''~%7BVPND~%7D~.pdf",
        "filename=\"=?hz?q?a~.pdf?=\"",
        "filename=\"=?hz?q?a.pdf\"",
    ] {
        check_malformed(&with_part(&format!("Content-Disposition: attachment; {parameter}")));
    }
}

/// In a charset that is not decoded here, or in which ASCII is not ASCII, a name may be any.
#[test]
fn a_name_in_a_charset_that_cannot_be_read_cannot_be_told() {
    for charset in [
        "cp037",
        "IBM037",
        "cp500",
        "cp1026",
        "cp875",
        "cp424",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "utf-7",
        "UTF_7",
        "unicode-1-1-utf-7",
        "utf-7-imap",
        "utf-16",
        "utf-16le",
        "utf-16be",
        "utf-32",
        "utf_32_le",
        "hz",
        "hz-gb-2312",
        "rot13",
        "idna",
        "hex",
        "base64",
        "x-unheard-of",
        "cp037*en",
        "\u{fc}",
        "ucs-2",
        "unicode",
        "x-user-defined",
    ] {
        for parameter in [
            format!("filename*={charset}''%81%4B%85%A7%85"),
            format!("filename*=\"{charset}'en'%81%4B%85%A7%85\""),
            format!("filename*0*={charset}''%81%4B; filename*1*=%85%A7%85"),
            format!("filename*1*=%85%A7%85; filename*0={charset}''%81%4B"),
            format!("filename*1*='%85%A7%85; filename*0={charset}'"),
            format!("filename=\"{charset}''%81%4B%85%A7%85\""),
            format!("filename=\"=?{charset}?Q?=81=4B=85=A7=85?=\""),
            format!("filename==?{charset}?b?gUuFp4U=?="),
            format!("filename=\"a =?utf-8?q?x?= =?{charset}?b?gUuFp4U=?=.txt\""),
            format!("filename*0=\"=?{charset}?q?=81\"; filename*1=\"=4B?=\""),
            format!("filename=\"=?{charset}\\?Q?=81=4B=85=A7=85?=\""),
        ] {
            with_parameter(&parameter).iter().for_each(|content| check_refused(content));
        }
    }
    for charset in [
        "utf-8",
        "UTF8",
        "utf_8",
        "us-ascii",
        "ascii",
        "ISO-8859-1",
        "iso_8859-15",
        "latin1",
        "latin-1",
        "iso-8859-8-i",
        "windows-1252",
        "cp1251",
        "Windows-1258",
        "koi8-r",
        "KOI8-U",
        "gb2312",
        "gbk",
        "GB18030",
        "big5",
        "shift_jis",
        "euc-jp",
        "euc-kr",
        "ks_c_5601-1987",
        "iso-2022-jp",
        "macintosh",
        "cp437",
        "ibm850",
        "tis-620",
        "utf-8*de",
    ] {
        for parameter in [
            format!("filename*={charset}''a%2Etxt"),
            format!("filename=\"=?{charset}?Q?a=2Etxt?=\""),
            format!("filename*0*={charset}''it's; filename*1*=%27a'b'.txt"),
        ] {
            check_sent(&with_part(&format!("Content-Disposition: attachment; {parameter}")));
        }
    }
    let text = "Content-Type: text/plain; charset=utf-7; name=a.txt";
    check_sent(&with_part(text));
    check_sent(&with_part("Content-Disposition: attachment; filename=\"it's 'x' 5%.txt\""));
}

/// Messages with a part that has this parameter, in both fields that name files.
fn with_parameter(parameter: &str) -> [String; 2] {
    [
        with_part(&format!("Content-Disposition: attachment; {parameter}")),
        with_part(&format!(
            "Content-Type: application/x; {}",
            parameter.replace("filename", "name")
        )),
    ]
}

fn check_blocked(content: &str) {
    let found = objected(content);
    assert!(matches!(found, Some(Objection::Blocked { .. })), "{found:?}: {content:.500}");
}
