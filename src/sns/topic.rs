//! Topic ARNs, and what follows from a topic's region: the one host that serves its certificates, and the name they bear.
//!
//! Everything here is derived from an ARN that the operator allow-listed, never from what a message says about itself.

use std::fmt;
use std::str::FromStr;

use crate::model::ids::{MerchantId, Region};

/// Longest topic name. Source: <https://docs.aws.amazon.com/sns/latest/api/API_CreateTopic.html>.
const MAX_NAME_LENGTH: usize = 256;

/// Regions that an account must opt in to; their certificates bear a name of their own.
/// Source: `SnsHostProvider` of the AWS SDK for Java v2, sns-message-manager.
const OPT_IN_REGIONS: [&str; 17] = [
    "af-south-1",
    "ap-east-1",
    "ap-east-2",
    "ap-south-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-west-1",
    "eu-central-2",
    "eu-south-1",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
    "me-south-1",
    "mx-central-1",
];

/// The AWS account of every topic of Amazon Pay that was published by its own SDK tests, in the United States and in Europe.
/// Source: amazon-pay-sdk-java, `tst/com/amazon/pay/impl/ipn`. Not documented, so it is never required.
pub const AMAZON_PAY_ACCOUNT: &str = "291180941288";

/// The AWS regions in which Amazon Pay's topics for a region of Amazon Pay are looked for. The United States and Europe are those of
/// the published samples; of Japan nothing is published, so the candidates are the nearest region and the two of its siblings.
#[must_use]
pub fn regions_of(region: Region) -> &'static [&'static str] {
    match region {
        Region::Na => &["us-east-1"],
        Region::Eu => &["eu-west-1"],
        Region::Jp => &["ap-northeast-1", "us-west-2", "us-east-1"],
    }
}

/// The ARN of an SNS topic: `arn:<partition>:sns:<region>:<account, 12 digits>:<name>`.
///
/// FIFO topics are not accepted: SNS delivers none of them over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicArn {
    text: String,
    partition: Partition,
    region: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Partition {
    Aws,
    China,
    GovCloud,
}

impl TopicArn {
    /// The ARN, byte for byte as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region, for example `eu-west-1`.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The AWS account that owns it.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.text.split(':').nth(4).unwrap_or_default()
    }

    /// What speaks against this being the topic of Amazon Pay for `merchant`, in words; none of it is proof.
    #[must_use]
    pub fn oddities(&self, merchant: &MerchantId) -> Vec<String> {
        let account = self.owner();
        let mut odd = Vec::new();
        if !self.is_named_after(merchant) {
            odd.push(format!(
                "its name does not end in the merchant id {merchant}, as the known topics of Amazon Pay do"
            ));
        }
        if account != AMAZON_PAY_ACCOUNT {
            odd.push(format!(
                "it belongs to the AWS account {account}; the known topics of Amazon Pay belong to {AMAZON_PAY_ACCOUNT}"
            ));
        }
        odd
    }

    /// Whether the topic's name ends in the merchant id, as in every published sample of Amazon Pay.
    #[must_use]
    pub fn is_named_after(&self, merchant: &MerchantId) -> bool {
        self.text.ends_with(merchant.as_str())
    }

    /// The only host that may serve certificates for messages of this topic: the region's SNS endpoint.
    #[must_use]
    pub fn certificate_host(&self) -> String {
        format!("sns.{}.{}", self.region, self.partition.dns_suffix())
    }

    /// The name that the signing certificate must bear. It is the name of the service, not of the regional host.
    #[must_use]
    pub fn certificate_name(&self) -> String {
        match self.region.as_str() {
            region @ ("cn-north-1" | "cn-northwest-1") => format!("sns-{region}.amazonaws.com.cn"),
            "us-gov-east-1" | "us-gov-west-1" => "sns-us-gov-west-1.amazonaws.com".to_owned(),
            region if OPT_IN_REGIONS.contains(&region) => format!("sns-signing.{region}.amazonaws.com"),
            _ => format!("sns.{}", self.partition.dns_suffix()),
        }
    }
}

impl Partition {
    fn dns_suffix(self) -> &'static str {
        match self {
            Self::Aws | Self::GovCloud => "amazonaws.com",
            Self::China => "amazonaws.com.cn",
        }
    }

    /// Whether `region` is a region of this partition by its form. A region becomes a part of a host name, so nothing
    /// but lower-case letters, a digit at the end and the right number of dashes may pass.
    fn has_region(self, region: &str) -> bool {
        let letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
        let after_area = match self {
            Self::Aws => region
                .split_once('-')
                .filter(|(area, _)| area.len() == 2 && letters(area) && *area != "cn")
                .map(|(_, rest)| rest),
            Self::China => region.strip_prefix("cn-"),
            Self::GovCloud => region.strip_prefix("us-gov-"),
        };
        after_area.and_then(|rest| rest.split_once('-')).is_some_and(|(direction, number)| {
            // At least four letters: `us-gov-...` and `us-iso-...` are no regions of the common partition.
            (4..=12).contains(&direction.len()) && letters(direction) && matches!(number.as_bytes(), [b'0'..=b'9'])
        })
    }
}

impl FromStr for TopicArn {
    type Err = InvalidTopicArn;

    fn from_str(text: &str) -> Result<Self, InvalidTopicArn> {
        let invalid = |expected| InvalidTopicArn { expected, got: text.chars().take(120).collect() };
        let parts: Vec<&str> = text.split(':').take(7).collect();
        let &[arn, partition, service, region, account, name] = parts.as_slice() else {
            return Err(invalid("six parts separated by ':'"));
        };
        if arn != "arn" || service != "sns" {
            return Err(invalid("arn:<partition>:sns:..."));
        }
        let partition = match partition {
            "aws" => Partition::Aws,
            "aws-cn" => Partition::China,
            "aws-us-gov" => Partition::GovCloud,
            _ => return Err(invalid("the partition aws, aws-cn or aws-us-gov")),
        };
        if !partition.has_region(region) {
            return Err(invalid("a region of that partition, for example us-east-1"));
        }
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid("an account id of 12 digits"));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(allowed) {
            return Err(invalid("a topic name of letters, digits, '-' and '_', without a subscription id"));
        }
        Ok(Self { text: text.to_owned(), partition, region: region.to_owned() })
    }
}

impl fmt::Display for TopicArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is not a topic ARN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an SNS topic ARN: expected {expected}, got {got:?}")]
pub struct InvalidTopicArn {
    /// What was expected, in words.
    pub expected: &'static str,
    /// The text that was given, cut to 120 characters.
    pub got: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> TopicArn {
        text.parse().unwrap()
    }

    #[test]
    fn the_certificate_host_and_name_follow_from_the_region() {
        for (partition, region, host, name) in [
            ("aws", "us-east-1", "sns.us-east-1.amazonaws.com", "sns.amazonaws.com"),
            ("aws", "eu-west-1", "sns.eu-west-1.amazonaws.com", "sns.amazonaws.com"),
            ("aws", "ap-northeast-1", "sns.ap-northeast-1.amazonaws.com", "sns.amazonaws.com"),
            ("aws", "eu-south-2", "sns.eu-south-2.amazonaws.com", "sns-signing.eu-south-2.amazonaws.com"),
            ("aws-cn", "cn-north-1", "sns.cn-north-1.amazonaws.com.cn", "sns-cn-north-1.amazonaws.com.cn"),
            ("aws-us-gov", "us-gov-east-1", "sns.us-gov-east-1.amazonaws.com", "sns-us-gov-west-1.amazonaws.com"),
        ] {
            let topic = topic(&format!("arn:{partition}:sns:{region}:291180941288:name"));
            assert_eq!((topic.certificate_host().as_str(), topic.certificate_name().as_str()), (host, name));
            assert_eq!(topic.region(), region);
        }
    }

    #[test]
    fn a_topic_that_is_not_like_amazon_pays_is_called_odd() {
        let merchant = "A2K7NDRCTOTPW9".parse().unwrap();
        let oddities = |arn: &str| topic(arn).oddities(&merchant).len();
        assert_eq!(oddities("arn:aws:sns:us-east-1:291180941288:A3BXB0YN3XH17HA2K7NDRCTOTPW9"), 0);
        assert_eq!(oddities("arn:aws:sns:us-east-1:291180941288:A2K7NDRCTOTPW9A3BXB0YN3XH17H"), 1);
        assert_eq!(oddities("arn:aws:sns:us-east-1:291180941289:A3BXB0YN3XH17HA2K7NDRCTOTPW9"), 1);
        assert_eq!(oddities("arn:aws:sns:us-east-1:123456789012:name"), 2);
    }

    #[test]
    fn anything_but_the_exact_grammar_is_refused() {
        for bad in [
            "",
            "arn:aws:sns:us-east-1:291180941288",
            "arn:aws:sns:us-east-1:291180941288:name:b24e11a2-06bd-4e73-aa29-0ed2de3b41b5",
            "arn:aws:sqs:us-east-1:291180941288:name",
            "ARN:aws:sns:us-east-1:291180941288:name",
            "arn:aws-iso:sns:us-iso-east-1:291180941288:name",
            "arn:aws:sns:us-iso-east-1:291180941288:name",
            "arn:aws:sns:cn-north-1:291180941288:name",
            "arn:aws-cn:sns:us-east-1:291180941288:name",
            "arn:aws:sns:us-gov-west-1:291180941288:name",
            "arn:aws:sns:s3-us-west-2:291180941288:name",
            "arn:aws:sns:evil.com/-east-1:291180941288:name",
            "arn:aws:sns:gov-west-1:291180941288:name",
            "arn:aws:sns:us-east-1-1:291180941288:name",
            "arn:aws-us-gov:sns:us-east-1:291180941288:name",
            "arn:aws:sns:US-EAST-1:291180941288:name",
            "arn:aws:sns:us-east-1.:291180941288:name",
            "arn:aws:sns::291180941288:name",
            "arn:aws:sns:us-east-1:29118094128:name",
            "arn:aws:sns:us-east-1:29118094128x:name",
            "arn:aws:sns:us-east-1:291180941288:",
            "arn:aws:sns:us-east-1:291180941288:na me",
            "arn:aws:sns:us-east-1:291180941288:name.fifo",
            "arn:aws:sns:us-east-1:291180941288:name\n",
            " arn:aws:sns:us-east-1:291180941288:name",
        ] {
            assert!(bad.parse::<TopicArn>().is_err(), "{bad:?}");
        }
        assert!(format!("arn:aws:sns:us-east-1:291180941288:{}", "n".repeat(257)).parse::<TopicArn>().is_err());
    }
}
