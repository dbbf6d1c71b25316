//! `SigningCertURL`: addresses that one parser reads as SNS's and another as somebody else's, and addresses that are nearly right.
//!
//! The attacker's listener serves, at every path, a certificate of the right name with the attacker's key, which signs these messages:
//! whoever asks there believes them.

use amazon_pay_ipn::sns::Check;

use crate::authority::keys;
use crate::case::{Corpus, Form};
use crate::message::Message;
use crate::net::{Net, file_name};

const HEX: &str = "7506a1e35b36ef5a444dd1a8e7cc3ed8";

pub(super) fn add(corpus: &mut Corpus<'_>) {
    for (family, form, addresses) in [
        ("url_authority", Form::Sandbox, authority(corpus.net)),
        ("url_scheme", Form::Sandbox, scheme(corpus.net)),
        ("url_path", Form::Sandbox, path(corpus.net)),
        ("url_whitespace", Form::Sandbox, whitespace(corpus.net)),
        ("url_live_host", Form::Live, live_hosts()),
        ("url_live_authority", Form::Live, live_authorities(corpus.net)),
        ("url_live_path", Form::Live, live_paths()),
    ] {
        corpus.family(family);
        for (variant, address) in addresses {
            let message = corpus.notification(variant).with("SigningCertURL", address).signed_by(&keys().attacker);
            corpus.forbidden(variant, message.body(), Check::CertificateUrl).form(form);
        }
    }
    genuine_signature(corpus);
    spelling_of_the_field(corpus);
}

/// The same with SNS's own signature: the address alone is wrong, even where it leads to the genuine certificate.
fn genuine_signature(corpus: &mut Corpus<'_>) {
    corpus.family("url_but_genuine_signature");
    let genuine = corpus.net.genuine.clone();
    for (variant, address) in [
        ("upper_case_scheme", genuine.replace("http://", "HTTP://")),
        ("double_slash", genuine.replace("/Simple", "//Simple")),
        ("query", format!("{genuine}?")),
        ("fragment", format!("{genuine}#")),
        ("userinfo", genuine.replace("http://", "http://x@")),
        ("percent_encoded", genuine.replace("/Simple", "/%53imple")),
        ("dot_segment", genuine.replace("/Simple", "/./Simple")),
        ("trailing_newline", format!("{genuine}\n")),
    ] {
        let message = corpus.notification(variant).with("SigningCertURL", address).signed();
        corpus.forbidden(variant, message.body(), Check::CertificateUrl);
    }
}

/// Lambda's spelling of the name is another field: it is not looked at, alone or beside the right one.
fn spelling_of_the_field(corpus: &mut Corpus<'_>) {
    corpus.family("url_field_spelling");
    for other in ["SigningCertUrl", "SigningCertURI", "signingCertURL", "SigningCertURL ", "SigningCertUrl\\u0000"] {
        let message = corpus.notification(other).signed();
        let address = message.get("SigningCertURL").to_owned();
        let renamed = message.without("SigningCertURL").and(other, address);
        corpus.malformed(other, renamed.body(), Check::Envelope);
    }
    let evil = format!("{}/{}", corpus.net.evil.base(), file_name("evil"));
    let beside = Message::notification(corpus.net, "spelling").with("SigningCertURL", evil.clone());
    let beside = beside.and("SigningCertUrl", corpus.net.genuine.clone()).signed_by(&keys().attacker);
    corpus.forbidden("lambda_spelling_names_the_right_one", beside.body(), Check::CertificateUrl);
}

fn authority(net: &Net) -> Vec<(&'static str, String)> {
    let (own, evil) = (net.certificates.address, net.evil.address);
    let (port, evil_port, file) = (own.port(), evil.port(), file_name("authority"));
    vec![
        ("other_host", format!("http://{evil}/{file}")),
        ("other_port", format!("http://127.0.0.1:{}/{file}", net.links.address.port())),
        ("no_port", format!("http://127.0.0.1/{file}")),
        ("port_with_a_zero_before", format!("http://127.0.0.1:0{port}/{file}")),
        ("port_with_a_plus", format!("http://127.0.0.1:+{port}/{file}")),
        ("port_and_more", format!("http://{own}0/{file}")),
        ("two_ports", format!("http://{own}:{evil_port}/{file}")),
        ("own_host_as_userinfo", format!("http://{own}@{evil}/{file}")),
        ("own_host_and_password_as_userinfo", format!("http://127.0.0.1:x@{evil}/{file}")),
        ("empty_userinfo", format!("http://@{evil}/{file}")),
        ("userinfo_before_own_host", format!("http://x:y@{own}/{file}")),
        ("two_at_signs", format!("http://x@{own}@{evil}/{file}")),
        ("encoded_at_sign", format!("http://{own}%40{evil}/{file}")),
        ("backslash_then_at", format!("http://{own}\\@{evil}/{file}")),
        ("backslash_for_slash", format!("http://{evil}\\@{own}/{file}")),
        ("backslash_path", format!("http://{own}\\{file}")),
        ("fragment_then_at", format!("http://{evil}#@{own}/{file}")),
        ("query_then_at", format!("http://{evil}?@{own}/{file}")),
        ("own_host_as_path", format!("http://{evil}/{own}/{file}")),
        ("own_host_as_label", format!("http://{own}.evil.example/{file}")),
        ("trailing_dot", format!("http://127.0.0.1.:{port}/{file}")),
        ("decimal_host", format!("http://2130706434:{evil_port}/{file}")),
        ("decimal_spelling_of_own_host", format!("http://2130706433:{port}/{file}")),
        ("hexadecimal_host", format!("http://0x7f000002:{evil_port}/{file}")),
        ("octal_host", format!("http://0177.0.0.2:{evil_port}/{file}")),
        ("short_host", format!("http://127.2:{evil_port}/{file}")),
        ("ipv6_mapped_host", format!("http://[::ffff:127.0.0.2]:{evil_port}/{file}")),
        ("ipv6_loopback", format!("http://[::1]:{port}/{file}")),
        ("ipv6_with_zone", format!("http://[fe80::1%25eth0]:{port}/{file}")),
        ("host_name", format!("http://localhost:{port}/{file}")),
        ("full_width_digits", format!("http://１２７.0.0.2:{evil_port}/{file}")),
        ("ideographic_full_stop", format!("http://127。0。0。2:{evil_port}/{file}")),
        ("percent_encoded_host", format!("http://%3127.0.0.2:{evil_port}/{file}")),
        ("soft_hyphen_in_the_host", format!("http://127.0.0.\u{ad}2:{evil_port}/{file}")),
        ("metadata_service", format!("http://169.254.169.254/{file}")),
    ]
}

fn scheme(net: &Net) -> Vec<(&'static str, String)> {
    let (own, evil, file) = (net.certificates.address, net.evil.address, file_name("scheme"));
    vec![
        ("https_to_the_attacker", format!("https://{evil}/{file}")),
        ("https_for_http", format!("https://{own}/{file}")),
        ("upper_case", format!("HTTP://{own}/{file}")),
        ("mixed_case", format!("Http://{evil}/{file}")),
        ("ftp", format!("ftp://{evil}/{file}")),
        ("file", format!("file:///tmp/{file}")),
        ("file_with_a_host", format!("file://{own}/{file}")),
        ("data", "data:application/x-pem-file;base64,LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t".to_owned()),
        ("gopher", format!("gopher://{evil}/_GET%20/{file}")),
        ("web_socket", format!("ws://{evil}/{file}")),
        ("blob", format!("blob:http://{own}/{file}")),
        ("view_source", format!("view-source:http://{own}/{file}")),
        ("none", format!("{own}/{file}")),
        ("relative_to_the_scheme", format!("//{evil}/{file}")),
        ("path_only", format!("/{file}")),
        ("file_name_only", file.clone()),
        ("one_slash", format!("http:/{evil}/{file}")),
        ("three_slashes", format!("http:///{evil}/{file}")),
        ("no_slash", format!("http:{evil}/{file}")),
        ("backslashes", format!("http:\\\\{evil}\\{file}")),
        ("empty", String::new()),
        ("two_addresses", format!("http://{own}/{file} http://{evil}/{file}")),
        ("two_addresses_with_a_comma", format!("http://{own}/{file},http://{evil}/{file}")),
    ]
}

fn path(net: &Net) -> Vec<(&'static str, String)> {
    let base = net.certificates.base();
    let at = |path: &str| format!("{base}{path}");
    vec![
        ("another_file", at("/evil.pem")),
        ("name_of_old_times", at("/SimpleNotificationService.pem")),
        ("folder_before", at(&format!("/x/SimpleNotificationService-{HEX}.pem"))),
        ("traversal", at(&format!("/x/../SimpleNotificationService-{HEX}.pem"))),
        ("traversal_encoded", at(&format!("/x/..%2fSimpleNotificationService-{HEX}.pem"))),
        ("traversal_encoded_dots", at(&format!("/x/%2e%2e/SimpleNotificationService-{HEX}.pem"))),
        ("traversal_in_the_digits", at("/SimpleNotificationService-../../../../../../../../../evil.pem")),
        ("address_in_the_digits", at("/SimpleNotificationService-@127.0.0.2:80/aaaaaaaaaaaaaaaaa.pem")),
        ("double_slash", at(&format!("//SimpleNotificationService-{HEX}.pem"))),
        ("slash_at_the_end", at(&format!("/SimpleNotificationService-{HEX}.pem/"))),
        ("lower_case_name", at(&format!("/simplenotificationservice-{HEX}.pem"))),
        ("upper_case_extension", at(&format!("/SimpleNotificationService-{HEX}.PEM"))),
        ("other_extension", at(&format!("/SimpleNotificationService-{HEX}.crt"))),
        ("no_extension", at(&format!("/SimpleNotificationService-{HEX}"))),
        ("extension_twice", at(&format!("/SimpleNotificationService-{HEX}.pem.pem"))),
        ("extension_after_nul", at(&format!("/SimpleNotificationService-{HEX}.exe%00.pem"))),
        ("extension_in_the_query", at("/evil?x=.pem")),
        ("whole_name_in_the_query", at(&format!("/evil?/SimpleNotificationService-{HEX}.pem"))),
        ("whole_name_in_the_fragment", at(&format!("/evil#/SimpleNotificationService-{HEX}.pem"))),
        ("query", at(&format!("/SimpleNotificationService-{HEX}.pem?n=1"))),
        ("empty_query", at(&format!("/SimpleNotificationService-{HEX}.pem?"))),
        ("fragment", at(&format!("/SimpleNotificationService-{HEX}.pem#x"))),
        ("parameter", at(&format!("/SimpleNotificationService-{HEX}.pem;x"))),
        ("digit_missing", at(&format!("/SimpleNotificationService-{}.pem", &HEX[1..]))),
        ("digit_too_many", at(&format!("/SimpleNotificationService-{HEX}0.pem"))),
        ("no_digits", at("/SimpleNotificationService-.pem")),
        ("upper_case_digits", at(&format!("/SimpleNotificationService-{}.pem", HEX.to_uppercase()))),
        ("one_upper_case_digit", at(&format!("/SimpleNotificationService-{}.pem", HEX.replacen('a', "A", 1)))),
        ("letter_beyond_f", at(&format!("/SimpleNotificationService-g{}.pem", &HEX[1..]))),
        ("foreign_digits", at(&format!("/SimpleNotificationService-٧{}.pem", &HEX[2..]))),
        ("encoded_digit", at(&format!("/SimpleNotificationService-%37{}.pem", &HEX[3..]))),
        ("dashes_as_in_a_uuid", at("/SimpleNotificationService-7506a1e3-5b36-ef5a-444d-d1a8e7cc.pem")),
        ("encoded_letter", at(&format!("/%53impleNotificationService-{HEX}.pem"))),
        ("no_path", base.clone()),
    ]
}

fn whitespace(net: &Net) -> Vec<(&'static str, String)> {
    let address = format!("{}/{}", net.certificates.base(), file_name("whitespace"));
    let evil = format!("{}/{}", net.evil.base(), file_name("whitespace"));
    vec![
        ("space_before", format!(" {address}")),
        ("space_after", format!("{address} ")),
        ("newline_before", format!("\n{address}")),
        ("newline_after", format!("{address}\n")),
        ("crlf_after", format!("{address}\r\n")),
        ("tab_after", format!("{address}\t")),
        ("tab_in_the_scheme", address.replace("http", "ht\ttp")),
        ("newline_in_the_host", address.replace("127.", "127\n.")),
        ("newline_in_the_path", address.replace("Simple", "Sim\nple")),
        ("tab_in_the_digits", address.replace(".pem", "\t.pem")),
        ("nul_after", format!("{address}\0")),
        ("nul_then_more", format!("{evil}\0{address}")),
        ("two_lines_the_second_right", format!("{evil}\n{address}")),
        ("two_lines_the_first_right", format!("{address}\n{evil}")),
        ("byte_order_mark", format!("\u{feff}{address}")),
        ("zero_width_space", address.replace("Simple", "Sim\u{200b}ple")),
        ("no_break_space", format!("{address}\u{a0}")),
        ("encoded_newline", format!("{address}%0a")),
        ("header_injection", address.replace("/Simple", "/ HTTP/1.1\r\nHost: evil\r\n\r\n/Simple")),
    ]
}

/// Hosts that the expressions of other validators accept, or that a glance takes for SNS.
fn live_hosts() -> Vec<(&'static str, String)> {
    [
        ("s3_us_west_2", "sns.s3-us-west-2.amazonaws.com"),
        ("s3_us_east_1", "sns.s3-us-east-1.amazonaws.com"),
        ("s3_accelerate", "sns.s3-accelerate.amazonaws.com"),
        ("s3_dualstack", "sns.s3.dualstack.us-east-1.amazonaws.com"),
        ("s3_external", "sns.s3-external-1.amazonaws.com"),
        ("s3_fips", "sns.s3-fips.us-east-1.amazonaws.com"),
        ("s3_website", "sns.s3-website-us-east-1.amazonaws.com"),
        ("s3_website_with_a_dot", "sns.s3-website.eu-central-1.amazonaws.com"),
        ("s3_virtual_host", "sns.us-east-1.amazonaws.com.s3.amazonaws.com"),
        ("s3_plain", "s3.amazonaws.com"),
        ("execute_api", "sns.execute-api.amazonaws.com"),
        ("execute_api_of_an_account", "abcdef1234.execute-api.us-east-1.amazonaws.com"),
        ("elastic_beanstalk", "sns.us-east-1.elasticbeanstalk.com"),
        ("cloudfront", "sns.cloudfront.net"),
        ("load_balancer", "sns.us-east-1.elb.amazonaws.com"),
        ("virtual_machine", "ec2-203-0-113-25.compute-1.amazonaws.com"),
        ("lambda_url", "sns.lambda-url.us-east-1.on.aws"),
        ("private_endpoint", "vpce-0abc-0def.sns.us-east-1.vpce.amazonaws.com"),
        ("any_label", "sns.evil.amazonaws.com"),
        ("wrong_partition_china", "sns.us-east-1.amazonaws.com.cn"),
        ("wrong_partition_region", "sns.cn-north-1.amazonaws.com.cn"),
        ("wrong_partition_government", "sns.us-gov-west-1.amazonaws.com"),
        ("wrong_partition_isolated", "sns.us-iso-east-1.c2s.ic.gov"),
        ("wrong_partition_europe", "sns.eusc-de-east-1.amazonaws.eu"),
        ("other_region", "sns.us-west-2.amazonaws.com"),
        ("region_of_another_allowed_topic", "sns.eu-west-1.amazonaws.com"),
        ("no_region", "sns.amazonaws.com"),
        ("dash_for_dot", "sns-us-east-1.amazonaws.com"),
        ("fips_endpoint", "sns-fips.us-east-1.amazonaws.com"),
        ("dual_stack_endpoint", "sns.us-east-1.api.aws"),
        ("label_before", "x.sns.us-east-1.amazonaws.com"),
        ("domain_after", "sns.us-east-1.amazonaws.com.evil.example"),
        ("dash_after", "sns.us-east-1.amazonaws.com-evil.example"),
        ("glued_before", "evilsns.us-east-1.amazonaws.com"),
        ("any_character_for_the_dot", "sns.us-east-1xamazonaws.com"),
        ("other_top_level", "sns.us-east-1.amazonaws.co"),
        ("another_domain", "sns.us-east-1.amazonaws.org"),
        ("swapped_letters", "sns.us-east-1.amaznoaws.com"),
        ("cyrillic_letter", "sns.us-east-1.am\u{430}zonaws.com"),
        ("punycode_of_cyrillic", "sns.us-east-1.xn--mzonaws-3fg.com"),
        ("full_width_letters", "ｓｎｓ.us-east-1.amazonaws.com"),
        ("ideographic_full_stop", "sns.us-east-1.amazonaws。com"),
        ("sharp_s", "\u{df}n\u{df}.us-east-1.amazonaws.com"),
        ("upper_case", "SNS.US-EAST-1.AMAZONAWS.COM"),
        ("one_upper_case_letter", "sns.us-east-1.Amazonaws.com"),
        ("trailing_dot", "sns.us-east-1.amazonaws.com."),
        ("two_dots", "sns..us-east-1.amazonaws.com"),
        ("percent_encoded_dot", "sns.us-east-1%2eamazonaws.com"),
        ("percent_encoded_letter", "%73ns.us-east-1.amazonaws.com"),
        ("default_port", "sns.us-east-1.amazonaws.com:443"),
        ("another_port", "sns.us-east-1.amazonaws.com:8443"),
        ("empty_port", "sns.us-east-1.amazonaws.com:"),
        ("userinfo", "x@sns.us-east-1.amazonaws.com"),
        ("userinfo_and_password", "x:y@sns.us-east-1.amazonaws.com"),
    ]
    .map(|(variant, host)| (variant, format!("https://{host}/SimpleNotificationService-{HEX}.pem")))
    .into()
}

/// SNS's host is in the text, and a listener of ours is where it leads to.
fn live_authorities(net: &Net) -> Vec<(&'static str, String)> {
    let (host, evil, file) = ("sns.us-east-1.amazonaws.com", net.evil.address, file_name("live"));
    vec![
        ("userinfo", format!("https://{host}@{evil}/{file}")),
        ("userinfo_with_port", format!("https://{host}:443@{evil}/{file}")),
        ("backslash_then_at", format!("https://{evil}\\@{host}/{file}")),
        ("fragment_then_at", format!("https://{evil}#@{host}/{file}")),
        ("query_then_at", format!("https://{evil}?@{host}/{file}")),
        ("host_as_path", format!("https://{evil}/{host}/{file}")),
        ("host_as_query", format!("https://{evil}/?{host}/{file}")),
        ("plain_http_to_the_attacker", format!("http://{evil}/{file}")),
        ("loopback", format!("https://{evil}/{file}")),
        ("address_that_a_sandbox_would_accept", net.genuine.clone()),
    ]
}

fn live_paths() -> Vec<(&'static str, String)> {
    let origin = "https://sns.us-east-1.amazonaws.com";
    vec![
        ("plain_http", format!("http://sns.us-east-1.amazonaws.com/SimpleNotificationService-{HEX}.pem")),
        ("upper_case_scheme", format!("HTTPS://sns.us-east-1.amazonaws.com/SimpleNotificationService-{HEX}.pem")),
        ("ftp", format!("ftp://sns.us-east-1.amazonaws.com/SimpleNotificationService-{HEX}.pem")),
        ("no_scheme", format!("sns.us-east-1.amazonaws.com/SimpleNotificationService-{HEX}.pem")),
        ("relative_to_the_scheme", format!("//sns.us-east-1.amazonaws.com/SimpleNotificationService-{HEX}.pem")),
        ("name_of_old_times", format!("{origin}/SimpleNotificationService.pem")),
        ("another_file", format!("{origin}/evil.pem")),
        ("query_of_an_action", format!("{origin}/?Action=ConfirmSubscription&x=/SimpleNotificationService-{HEX}.pem")),
        ("query", format!("{origin}/SimpleNotificationService-{HEX}.pem?n=1")),
        ("traversal", format!("{origin}/bucket/../SimpleNotificationService-{HEX}.pem")),
        ("double_slash", format!("{origin}//SimpleNotificationService-{HEX}.pem")),
        ("upper_case_digits", format!("{origin}/SimpleNotificationService-{}.pem", HEX.to_uppercase())),
    ]
}
