//! Names of null models, and what fits which card.

use super::*;

fn name(text: &str) -> NullName {
    NullName::parse(text).unwrap()
}

fn complaint(text: &str) -> String {
    NullName::parse(text).unwrap_err().to_string()
}

#[test]
fn every_name_reads_as_it_is_written() {
    for shape in Shape::ALL {
        assert_eq!(name(shape.name()), NullName { shape, on: None });
        for card in Card::ALL {
            for precision in Precision::ALL {
                let on = Some((card, precision));
                let written = NullName { shape, on }.to_string();
                assert_eq!(name(&written), NullName { shape, on }, "{written}");
            }
        }
    }
    let nvl = name("mixtral-8x22b@h100-nvl-q4_k");
    assert_eq!(nvl.shape, Shape::Mixtral8x22b);
    assert_eq!(nvl.on, Some((Card::H100Nvl, Precision::Q4K)));
}

#[test]
fn a_wrong_part_is_refused_with_those_that_exist() {
    assert_eq!(
        complaint("mixtral-9x7b"),
        "there is no shape \"mixtral-9x7b\"; there are mixtral-8x7b, mixtral-8x22b"
    );
    assert_eq!(
        complaint("mixtral-8x7b@b200-fp8"),
        "there is no device \"b200\"; there are a100, h100-nvl, h100, h200"
    );
    assert_eq!(
        complaint("mixtral-8x7b@a100-fp4"),
        "there is no precision \"fp4\"; there are bf16, q8_0, fp8, int8, q4_k, w4a16"
    );
    for text in ["mixtral-8x7b@a100", "mixtral-8x7b@"] {
        assert_eq!(
            complaint(text),
            "after @ stand a device and a precision, such as a100-w4a16"
        );
    }
    for text in [
        "",
        "@a100-w4a16",
        "mixtral-8x7b ",
        "Mixtral-8x7B",
        "mixtral-8x7b@-",
    ] {
        assert!(NullName::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_cache_is_what_the_weights_leave_of_the_card() {
    // Thousands of tokens, as the table of what fits where has them.
    for (on, thousands) in [
        ("a100-q8_0", 168.0),
        ("a100-int8", 188.0),
        ("a100-q4_k", 330.0),
        ("a100-w4a16", 358.0),
        ("h100-fp8", 188.0),
        ("h100-nvl-q8_0", 266.0),
        ("h100-nvl-fp8", 286.0),
        ("h100-nvl-q4_k", 429.0),
        ("h100-nvl-w4a16", 456.0),
        ("h200-bf16", 262.0),
        ("h200-q8_0", 596.0),
        ("h200-fp8", 616.0),
        ("h200-q4_k", 758.0),
        ("h200-w4a16", 786.0),
    ] {
        let tokens = name(&format!("mixtral-8x7b@{on}")).kv_cache_tokens();
        let given = tokens.unwrap().unwrap() as f64 / 1000.0;
        assert!(
            (given - thousands).abs() < 0.01 * thousands,
            "{on}: {given}"
        );
    }
    assert_eq!(name("mixtral-8x7b").kv_cache_tokens(), Ok(None));
}

#[test]
fn weights_that_do_not_fit_are_refused_with_what_would() {
    let error = name("mixtral-8x7b@a100-bf16")
        .kv_cache_tokens()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights need 87.0 GiB, an A100 80 GB PCIe has 66.7 GiB for weights and cache"
    );
    assert_eq!(
        error.source().unwrap().to_string(),
        "mixtral-8x7b is 46.7 B parameters × 2.00 bytes (bf16)"
    );
    assert_eq!(
        error.hint(),
        "these fit: a100-q8_0, a100-int8, a100-q4_k, \
         a100-w4a16, h200-bf16"
    );
    let error = name("mixtral-8x22b@a100-bf16")
        .kv_cache_tokens()
        .unwrap_err();
    assert_eq!(
        error.hint(),
        "no card of the list holds it in any precision near this one"
    );
    assert!(
        name("mixtral-8x7b@h100-nvl-bf16")
            .kv_cache_tokens()
            .is_err()
    );
}

#[test]
fn an_a100_is_asked_for_no_fp8() {
    let error = name("mixtral-8x7b@a100-fp8").kv_cache_tokens().unwrap_err();
    assert_eq!(
        error.to_string(),
        "an A100 80 GB PCIe has no fp8 arithmetic"
    );
    assert_eq!(error.hint(), "int8 is as small: write a100-int8");
}
