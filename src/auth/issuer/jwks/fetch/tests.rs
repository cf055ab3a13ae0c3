use super::*;

fn age_of(values: &[&str]) -> Option<u64> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(CACHE_CONTROL, value.parse().unwrap());
    }
    max_age(&headers).map(|age| age.as_secs())
}

#[test]
fn max_age_is_read_among_other_directives() {
    assert_eq!(age_of(&[]), None);
    assert_eq!(
        age_of(&["public, max-age=86400, must-revalidate"]),
        Some(86_400)
    );
    assert_eq!(age_of(&["public", "Max-Age=\"60\""]), Some(60));
    assert_eq!(age_of(&["max-age=60, no-store"]), Some(0));
    assert_eq!(age_of(&["no-cache"]), Some(0));
}

#[test]
fn nonsense_says_nothing() {
    for value in [
        "max-age",
        "max-age=",
        "max-age=-1",
        "max-age=soon",
        "s-maxage=5",
        "max-age=99999999999999999999",
    ] {
        assert_eq!(age_of(&[value]), None, "{value}");
    }
}
