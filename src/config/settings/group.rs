//! The headings under which settings stand.

/// Headings of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What is served.
    Model,
    /// What a step may use.
    Engine,
    /// Where to listen and how long to wait.
    Server,
    /// Certificates.
    Tls,
    /// Who is let in.
    Auth,
    /// What is written down.
    Ledger,
    /// What is told meanwhile.
    Logging,
}

impl Group {
    /// The heading.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Model => "Model",
            Self::Engine => "Engine",
            Self::Server => "Server",
            Self::Tls => "TLS",
            Self::Auth => "Auth",
            Self::Ledger => "Ledger",
            Self::Logging => "Logging",
        }
    }
}
