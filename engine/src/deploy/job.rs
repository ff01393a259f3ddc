//! What is known of one deploy while it is executed.

use std::path::Path;

use copal_source::target::Capabilities;

use super::compare::How;
use super::desired::Desired;
use super::pending::Ledger;
use super::place::Place;
use super::run::Run;

/// What the execution needs to know of one deploy.
pub(super) struct Job<'j> {
    pub(super) run: &'j Run<'j>,
    pub(super) desired: &'j Desired<'j>,
    pub(super) place: &'j Place,
    pub(super) single: bool,
    pub(super) capabilities: Capabilities,
    /// Where it is noted; none of a dry run.
    pub(super) ledger: Option<&'j Ledger>,
    /// Names in the target that are no part of it.
    pub(super) hidden: &'j [Vec<u8>],
    /// Build here, beside the target, and leave the switch to the caller.
    pub(super) staged: Option<&'j Path>,
    pub(super) how: How,
}
