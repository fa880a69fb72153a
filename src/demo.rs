//! The demo: the traffic of a small shop, and a live view of what tailkeep makes of it.
//!
//! The traffic goes over OTLP/gRPC to the process's own port, as any application's would. The view
//! is filled by whoever knows the stages; nothing here does.

mod keys;
pub mod screen;
pub mod shop;
pub mod traffic;
pub mod view;

pub use screen::{Ended, watch};
pub use traffic::traffic;
pub use view::{KeptView, ListenerView, OperationView, RingView, RuleView, SinkView, View};
