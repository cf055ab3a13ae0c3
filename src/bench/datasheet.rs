//! What a card's maker says it does, by the name that its driver tells.

use serde::Serialize;

/// Rates of a card as its datasheet has them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Datasheet {
    /// Of its memory, in GB/s.
    pub gb_per_s: f64,
    /// Of dense bf16 products on tensor cores, in TFLOP/s.
    pub bf16_tflop_per_s: f64,
}

impl Datasheet {
    /// That of a device whose description holds the name of a known card, such as `cuda:0, NVIDIA H100 80GB HBM3`.
    pub fn of(device: &str) -> Option<Self> {
        // Whole words: GH200 is another card than H200.
        let is_named = |name: &str| device.contains(&format!(" {name}"));
        let (_, rates) = CARDS.iter().find(|(name, _)| is_named(name))?;
        let [gb_per_s, bf16_tflop_per_s] = *rates;
        Some(Self {
            gb_per_s,
            bf16_tflop_per_s,
        })
    }
}

/// Part of a name, GB/s and TFLOP/s; a name before those that are part of it. NVIDIA's datasheets of A100, H100, H100 NVL,
/// H200: dense, which is half of what they give "with sparsity".
const CARDS: [(&str, [f64; 2]); 9] = [
    ("A100 80GB PCIe", [1935.0, 312.0]),
    ("A100-SXM4-80GB", [2039.0, 312.0]),
    ("A100-SXM4-40GB", [1555.0, 312.0]),
    ("A100-PCIE-40GB", [1555.0, 312.0]),
    ("H100 80GB HBM3", [3350.0, 989.0]),
    ("H100 NVL", [3900.0, 835.0]),
    ("H100 PCIe", [2000.0, 756.0]),
    ("H200 NVL", [4800.0, 835.0]),
    ("H200", [4800.0, 989.0]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_known_by_its_drivers_name_and_no_other_is() {
        let rate = |name: &str| Datasheet::of(name).map(|it| it.bf16_tflop_per_s);
        assert_eq!(rate("cuda:0, NVIDIA A100 80GB PCIe"), Some(312.0));
        assert_eq!(rate("cuda:3, NVIDIA H100 80GB HBM3, cuBLASLt"), Some(989.0));
        assert_eq!(rate("cuda:0, NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(rate("cuda:0, NVIDIA H100 NVL"), Some(835.0));
        assert_eq!(rate("cuda:0, NVIDIA H200"), Some(989.0));
        assert_eq!(rate("cuda:0, NVIDIA H200 NVL"), Some(835.0));
        for other in ["cuda:0, emulated GPU", "NVIDIA GH200 480GB", "NVIDIA L40S"] {
            assert_eq!(rate(other), None, "{other}");
        }
    }
}
