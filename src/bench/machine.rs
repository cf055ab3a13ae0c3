//! What a result was measured on.

use std::fs;
use std::thread;

use serde::Serialize;

/// The machine, in the words of its operating system. Names nobody and no place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's own name, if it says one.
    pub cpu: Option<String>,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Main memory, in bytes, if that is known.
    pub memory_bytes: Option<u64>,
    /// System and processor family, such as `linux x86_64`.
    pub system: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: field(&read("/proc/meminfo"), "MemTotal").and_then(|size| kib(&size)),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The value of the first line that is called `name`, in files of `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

fn kib(size: &str) -> Option<u64> {
    size.strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_name_alone() {
        let text = "model\t\t: 17\nmodel name\t: AMD EPYC: a name\nMemTotal:   16 kB\n";
        assert_eq!(
            field(text, "model name").as_deref(),
            Some("AMD EPYC: a name")
        );
        assert_eq!(
            field(text, "MemTotal").and_then(|size| kib(&size)),
            Some(16384)
        );
        assert_eq!(field(text, "MemFree"), None);
        assert_eq!(kib("16 MB"), None);
    }

    #[test]
    fn there_is_always_a_processor() {
        assert!(Machine::this().cpus > 0);
    }
}
