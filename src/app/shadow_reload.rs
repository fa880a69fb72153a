//! Puts the candidate of `policy_shadow` beside the policy in force, and a changed one in its place. A candidate that is
//! wrong or not there stops nothing: it is said, and looked for again.

use super::followed_file::FollowedFile;
use crate::pipeline::Pipeline;
use crate::pipeline::active_policy::ActivePolicy;
use crate::pipeline::shadow_policy::ShadowPolicy;
use crate::policy::Policy;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Follows the candidate's file.
pub(super) struct ShadowReloader {
    path: PathBuf,
    pipeline: Arc<Pipeline>,
    /// What was refused last: it is said once.
    refused: Option<String>,
}

impl ShadowReloader {
    pub(super) fn new(path: PathBuf, pipeline: Arc<Pipeline>) -> ShadowReloader {
        ShadowReloader { path, pipeline, refused: None }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut file = FollowedFile::new(self.path.clone());
        loop {
            let (text, asked) = file.next().await;
            self.look(text, asked);
        }
    }

    fn look(&mut self, text: io::Result<String>, asked: bool) {
        let file = self.path.display().to_string();
        let outcome = text.map_err(|error| format!("cannot read it: {error}")).and_then(|text| {
            let pipeline = self.pipeline.clone();
            let _turn = pipeline.change_policy();
            let old = pipeline.active_policy.load_full();
            if old.shadow.as_ref().is_some_and(|shadow| shadow.policy.text == text) {
                return Ok(None);
            }
            let shadow = ShadowPolicy::compile(&old.policy, &file, &text)?;
            let hash = shadow.policy.hash.clone();
            pipeline.activate(prepare(&old, shadow)?);
            Ok(Some(hash))
        });
        match outcome {
            Ok(Some(hash)) => tracing::info!(file, hash, "the shadow policy judges beside the policy in force"),
            Ok(None) if asked => tracing::info!(file, "the shadow policy has not changed"),
            Ok(None) => {}
            Err(problem) if asked || self.refused.as_ref() != Some(&problem) => {
                tracing::warn!(file, problem, "the shadow policy cannot be used: see `tailkeep check`");
                self.refused = Some(problem);
                return;
            }
            Err(_) => return,
        }
        self.refused = None;
    }
}

/// The policy in force once more, with another candidate beside it.
fn prepare(old: &ActivePolicy, shadow: ShadowPolicy) -> Result<ActivePolicy, String> {
    let mut rules = old.rules.clone();
    let Policy { file, text, number, .. } = &old.policy;
    let policy = Policy::compile(file, text, *number, &mut rules).0.ok_or("the policy in force is not valid")?;
    let mut fresh = old
        .successor(policy, Some(shadow), rules)
        .map_err(|_| "it and the policy in force ask more different questions than there are bits")?;
    fresh.history = old.history.clone();
    Ok(fresh)
}
