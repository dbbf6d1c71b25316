# The production image: no sandbox, no demo, no movable clock (--no-default-features). Needs BuildKit, as Docker has it.

# The toolchain that CI uses. The slim image has the C compiler that ring needs, and the glibc of the final image.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
COPY . .
# The registry and the target folder are kept between builds; touching our own files makes cargo rebuild exactly those, even
# where a checkout gave them old times, so that a cached target folder can never ship yesterday's code.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    find src -type f -exec touch {} + \
    && cargo build --release --locked --no-default-features \
    && cp target/release/amazon-pay-ipn /amazon-pay-ipn

# Distroless: glibc, libgcc, the CA certificates that rustls-platform-verifier reads, and the time zones of
# MONTHLY_LIMIT_TIME_ZONE; no shell and no package manager. Releases should pin it by digest.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="amazon-pay-ipn" \
      org.opencontainers.image.description="Receives Amazon Pay notifications, recovers declined merchant-initiated charges, and never charges twice." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /amazon-pay-ipn /usr/local/bin/amazon-pay-ipn
# By number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
# 8080 is public: POST /ipn and nothing else. 8081 is internal; it must not reach the internet.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/amazon-pay-ipn", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/amazon-pay-ipn"]
CMD ["serve"]
