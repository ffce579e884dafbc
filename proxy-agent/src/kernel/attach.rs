//! Attaches the programs so that they outlive the agent.

/// The loaded programs.
pub struct Programs {
    _private: (),
}
