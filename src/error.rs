//! One error type for everything that can go wrong, opaque but for predicates.

use std::fmt;

/// The result of every fallible operation in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in the classes that a caller may want to treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A parameter is out of its range or contradicts another one.
    InvalidParameter,
    /// A path, data set or device that was named does not exist or cannot be reached.
    NotFound,
    /// The data set holds no samples.
    EmptyDataset,
    /// Storage returned an error.
    Io,
    /// Storage did not answer in the time that was allowed.
    TimedOut,
    /// An object ended before the bytes that were expected of it.
    Truncated,
    /// An object is not the one that was listed or indexed.
    Changed,
    /// An index does not describe the data that it lies beside, or contradicts itself.
    IndexStale,
    /// The bytes are no image of a known format.
    NotAnImage,
    /// The bytes are an image or archive whose content contradicts its own format.
    Corrupt,
    /// A valid input that this build or machine cannot handle.
    Unsupported,
    /// An input asks for more than the configured [`Limits`](crate::Limits).
    LimitExceeded,
    /// More samples were bad than the [`ErrorBudget`](crate::ErrorBudget) allows, or none is left to stand in for one.
    BudgetExceeded,
    /// The consumer holds every batch, so none can be filled.
    BatchesHeld,
    /// Something was required by name and is not available.
    Unavailable,
    /// A device, or page-locked host memory for it, does not hold what was requested.
    OutOfMemory,
    /// A device failed in a way that no later call to it in this process can mend: an illegal address in a kernel,
    /// an uncorrectable memory error, a reset.
    DeviceLost,
    /// A stage failed in a way that says nothing about the data, such as a panic in a worker.
    Internal,
}

impl ErrorKind {
    /// The name used in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidParameter => "InvalidParameter",
            Self::NotFound => "NotFound",
            Self::EmptyDataset => "EmptyDataset",
            Self::Io => "Io",
            Self::TimedOut => "TimedOut",
            Self::Truncated => "Truncated",
            Self::Changed => "Changed",
            Self::IndexStale => "IndexStale",
            Self::NotAnImage => "NotAnImage",
            Self::Corrupt => "Corrupt",
            Self::Unsupported => "Unsupported",
            Self::LimitExceeded => "LimitExceeded",
            Self::BudgetExceeded => "BudgetExceeded",
            Self::BatchesHeld => "BatchesHeld",
            Self::Unavailable => "Unavailable",
            Self::OutOfMemory => "OutOfMemory",
            Self::DeviceLost => "DeviceLost",
            Self::Internal => "Internal",
        }
    }
}

/// An error with its cause, the sample it concerns where there is one, and the remedy where one is
/// known.
///
/// `Display` prints `what: cause (remedy)`; [`std::error::Error::source`] leads to the operating
/// system's or a library's own error.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    sample: Option<String>,
    /// No fault of the sample: whatever stood in its place would have failed too.
    is_of_batch: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of a kind. `message` names the thing and the cause. Public so that a
    /// [`Source`](crate::source::Source) of your own can report.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { kind, message, remedy: None, sample: None, is_of_batch: false, source: None }))
    }

    /// [`ErrorKind::InvalidParameter`]: names the parameter, its value and what is allowed.
    pub fn invalid_parameter(name: &str, value: impl fmt::Display, allowed: &str) -> Self {
        Self::new(ErrorKind::InvalidParameter, format!("{name} is {value}: {allowed}"))
    }

    /// [`ErrorKind::Io`] (or `NotFound` where the system says so) for an operation on a named object.
    pub fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::UnexpectedEof => ErrorKind::Truncated,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{what}: {source}")).with_source(source)
    }

    /// Adds what the user can do about it.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Names the sample: its key, and where its bytes lie.
    pub fn with_sample(mut self, sample: impl Into<String>) -> Self {
        self.0.sample = Some(sample.into());
        self
    }

    /// Says that it is no fault of the sample, but of what its batch shares.
    pub(crate) fn of_batch(mut self) -> Self {
        self.0.is_of_batch = true;
        self
    }

    /// Adds the underlying error.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sample it concerns, if it concerns one: key and place.
    pub fn sample(&self) -> Option<&str> {
        self.0.sample.as_deref()
    }

    /// What the user can do about it, where that is known.
    pub fn remedy(&self) -> Option<&str> {
        self.0.remedy.as_deref()
    }

    /// What went wrong without the remedy: the sample where there is one, and the message.
    pub(crate) fn cause(&self) -> String {
        match &self.0.sample {
            Some(sample) => format!("sample {sample}: {}", self.0.message),
            None => self.0.message.clone(),
        }
    }

    /// The message alone.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether it is the sample's own fault, which a policy can pass over.
    pub(crate) fn is_of_sample(&self) -> bool {
        !self.0.is_of_batch && !matches!(self.0.kind, ErrorKind::DeviceLost | ErrorKind::OutOfMemory)
    }

    /// Whether the same operation may succeed when tried again with nothing changed.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Io | ErrorKind::TimedOut | ErrorKind::BatchesHeld)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(sample) = &self.0.sample {
            write!(f, "sample {sample}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(remedy) = &self.0.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind.name())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
