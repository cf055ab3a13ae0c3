use proptest::prelude::*;

use super::*;

/// Shows `pieces` to a fresh watcher; what comes out, and whether it stopped.
fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
    let mut watcher = StopStrings::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
    let mut shown = String::new();
    let mut stopped = false;
    for piece in pieces {
        let released = watcher.push(piece);
        assert!(
            !stopped || (released.stopped && released.text.is_empty()),
            "text was shown after the match"
        );
        shown.push_str(&released.text);
        stopped = released.stopped;
    }
    shown.push_str(&watcher.finish());
    (shown, stopped)
}

/// The slow, obvious twin: the first place where the text so far ends with a stop string; the longest one there.
fn twin(stops: &[String], text: &str) -> (String, bool) {
    for end in 1..=text.len() {
        let matches = stops
            .iter()
            .filter(|stop| !stop.is_empty() && text.as_bytes()[..end].ends_with(stop.as_bytes()));
        if let Some(longest) = matches.map(String::len).max() {
            return (text[..end - longest].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

#[test]
fn text_without_a_stop_string_is_shown_whole() {
    assert_eq!(run(&[], &["hel", "lo"]), ("hello".into(), false));
    assert_eq!(run(&["xyz"], &["hel", "lo"]), ("hello".into(), false));
}

#[test]
fn nothing_of_a_stop_string_or_after_it_is_shown() {
    assert_eq!(run(&["END"], &["a EN", "D b", "c"]), ("a ".into(), true));
}

#[test]
fn a_stop_string_may_come_in_many_pushes() {
    assert_eq!(
        run(
            &["\n\nUser:"],
            &["ok", "\n", "\n", "U", "s", "er", ":", " hi"]
        ),
        ("ok".into(), true)
    );
}

#[test]
fn the_tail_that_could_become_a_stop_string_is_held_and_no_more() {
    let mut watcher = StopStrings::new(vec!["abab!".into()]);
    assert_eq!(watcher.push("xab").text, "x");
    assert_eq!(watcher.push("ab").text, "");
    assert_eq!(
        watcher.push("ab").text,
        "ab",
        "the last four letters still could"
    );
    assert_eq!(watcher.push("c").text, "ababc");
}

#[test]
fn what_was_held_is_shown_at_the_end() {
    let mut watcher = StopStrings::new(vec!["</done>".into()]);
    assert_eq!(watcher.push("x </do").text, "x ");
    assert_eq!(watcher.finish(), "</do");
}

#[test]
fn the_match_that_ends_first_wins() {
    assert_eq!(run(&["abcd", "bc"], &["xabcd"]), ("xa".into(), true));
    assert_eq!(
        run(&["bc", "abc"], &["xabcd"]),
        ("x".into(), true),
        "of those that end together, the longest"
    );
}

#[test]
fn a_stop_string_inside_multi_byte_text_cuts_between_characters() {
    assert_eq!(run(&["本"], &["日", "本", "語"]), ("日".into(), true));
    // U+65E5 and U+65E6 share their first two bytes.
    assert_eq!(
        run(&["\u{65E5}"], &["\u{65E6}", "é"]),
        ("\u{65E6}é".into(), false)
    );
}

#[test]
fn empty_stop_strings_are_ignored() {
    assert_eq!(run(&["", "b"], &["abc"]), ("a".into(), true));
    assert_eq!(run(&[""], &["abc"]), ("abc".into(), false));
}

proptest! {
    #[test]
    fn any_cut_gives_what_the_whole_text_gives(
        stops in prop::collection::vec("[abé]{0,5}", 0..4),
        pieces in prop::collection::vec("[abé日]{0,4}", 0..12),
    ) {
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let names: Vec<&str> = stops.iter().map(String::as_str).collect();
        prop_assert_eq!(run(&names, &pieces), twin(&stops, &pieces.concat()));
    }

    #[test]
    fn only_a_beginning_of_a_stop_string_is_ever_held(
        stops in prop::collection::vec("[ab]{1,5}", 1..4),
        pieces in prop::collection::vec("[ab]{0,4}", 0..12),
    ) {
        let mut watcher = StopStrings::new(stops.clone());
        for piece in &pieces {
            if watcher.push(piece).stopped {
                break;
            }
            let held = &watcher.held;
            prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held) && stop != held));
        }
    }
}
