//! The rules, with Docker's names and descriptions.

/// Where Docker describes its rules.
const PAGES: &str = "https://docs.docker.com/go/dockerfile/rule";

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it demands.
    pub description: &'static str,
    /// The name of its page.
    page: &'static str,
    /// Whether it counts only if the Dockerfile asks for it.
    pub experimental: bool,
}

impl Rule {
    const fn new(name: &'static str, page: &'static str, description: &'static str) -> Self {
        Rule {
            name,
            description,
            page,
            experimental: false,
        }
    }

    const fn experimental(self) -> Self {
        Rule {
            experimental: true,
            ..self
        }
    }

    /// The address of its description.
    pub fn address(&self) -> String {
        format!("{PAGES}/{}/", self.page)
    }
}

/// [`Rule::description`] says it.
pub static STAGE_NAME_CASING: Rule = Rule::new(
    "StageNameCasing",
    "stage-name-casing",
    "Stage names should be lowercase",
);

/// [`Rule::description`] says it.
pub static FROM_AS_CASING: Rule = Rule::new(
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword",
);

/// [`Rule::description`] says it.
pub static NO_EMPTY_CONTINUATION: Rule = Rule::new(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
);

/// [`Rule::description`] says it.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);

/// [`Rule::description`] says it.
pub static DUPLICATE_STAGE_NAME: Rule = Rule::new(
    "DuplicateStageName",
    "duplicate-stage-name",
    "Stage names should be unique",
);

/// [`Rule::description`] says it.
pub static RESERVED_STAGE_NAME: Rule = Rule::new(
    "ReservedStageName",
    "reserved-stage-name",
    "Reserved words should not be used as stage names",
);

/// [`Rule::description`] says it.
pub static JSON_ARGS_RECOMMENDED: Rule = Rule::new(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);

/// [`Rule::description`] says it.
pub static MAINTAINER_DEPRECATED: Rule = Rule::new(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);

/// [`Rule::description`] says it.
pub static UNDEFINED_ARG_IN_FROM: Rule = Rule::new(
    "UndefinedArgInFrom",
    "undefined-arg-in-from",
    "FROM command must use declared ARGs",
);

/// [`Rule::description`] says it.
pub static WORKDIR_RELATIVE_PATH: Rule = Rule::new(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);

/// [`Rule::description`] says it.
pub static UNDEFINED_VAR: Rule = Rule::new(
    "UndefinedVar",
    "undefined-var",
    "Variables should be defined before their use",
);

/// [`Rule::description`] says it.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);

/// [`Rule::description`] says it.
pub static LEGACY_KEY_VALUE_FORMAT: Rule = Rule::new(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
);

/// [`Rule::description`] says it.
pub static REDUNDANT_TARGET_PLATFORM: Rule = Rule::new(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);

/// [`Rule::description`] says it.
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::new(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
);

/// [`Rule::description`] says it.
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::new(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
);

/// [`Rule::description`] says it.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::new(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
);

/// [`Rule::description`] says it.
pub static COPY_IGNORED_FILE: Rule = Rule::new(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
);

/// [`Rule::description`] says it.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule::new(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
).experimental();

/// [`Rule::description`] says it.
pub static EXPOSE_PROTO_CASING: Rule = Rule::new(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase",
);

/// [`Rule::description`] says it.
pub static EXPOSE_INVALID_FORMAT: Rule = Rule::new(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);
