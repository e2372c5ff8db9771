//! Who may do what. Asked by every verb, on every request.
//!
//! There are no accounts yet: everybody is anonymous and may do everything,
//! which is why the server listens on loopback only unless told otherwise.

use orlop_oci::RepositoryName;

use super::Error;

/// Who makes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nobody in particular.
    Anonymous,
    /// Who owns the data folder.
    Operator,
}

/// What is to be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read blobs, manifests and tags.
    Pull,
    /// Write them.
    Push,
    /// Take them away.
    Delete,
}

/// Whether the subject may do this to the repository.
pub(super) fn allow(
    subject: Subject,
    verb: Verb,
    _repository: &RepositoryName,
) -> Result<(), Error> {
    match (subject, verb) {
        (Subject::Anonymous | Subject::Operator, Verb::Pull | Verb::Push | Verb::Delete) => Ok(()),
    }
}
