use super::*;

#[test]
fn sizes_have_binary_and_decimal_units() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("4MiB", 4 << 20),
        ("4 MiB", 4 << 20),
        ("4mib", 4 << 20),
    ] {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for (text, bytes) in [
        ("1kB", 1000),
        ("2MB", 2_000_000),
        ("3GB", 3_000_000_000),
        ("7B", 7),
    ] {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in [
        "",
        "MiB",
        "4M",
        "-4MiB",
        "+4MiB",
        "4.5MiB",
        "4 MiB x",
        "99999999999999TiB",
    ] {
        assert_eq!(parse_size(text), None, "{text}");
    }
    assert_eq!(ByteSize(1536 << 10).toml(), "\"1536KiB\"");
    assert_eq!(ByteSize(1001).toml(), "\"1001B\"");
}

#[test]
fn times_need_units_from_large_to_small() {
    let millis = |text| parse_duration(text).map(|time| time.as_millis());
    for (text, expected) in [
        ("500ms", 500),
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("7d", 604_800_000),
        ("0s", 0),
    ] {
        assert_eq!(millis(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "30",
        "s",
        "1.5s",
        "-1s",
        "+1s",
        "1m1h",
        "1s1s",
        "1 fortnight",
        "99999999999999999999s",
    ] {
        assert_eq!(millis(text), None, "{text}");
    }
    for text in ["\"90s\"", "\"500ms\"", "\"2m\"", "\"0s\""] {
        assert_eq!(parse_duration(text.trim_matches('"')).unwrap().toml(), text);
    }
}

#[test]
fn a_log_level_with_a_slip_is_refused() {
    for good in ["info", "mixgate=debug", "warn,mixgate::engine=trace", "off"] {
        assert!(LogFilter::parse(good).is_some(), "{good}");
    }
    for bad in ["", "inof", "warn,", "mixgate=loud"] {
        assert!(LogFilter::parse(bad).is_none(), "{bad}");
    }
}
