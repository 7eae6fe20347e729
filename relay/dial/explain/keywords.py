"""The keywords of ssh_config that have no effect on a hop. docs/ssh_config.md says why; a test holds these lists to it.

SendEnv and GSSAPIAuthentication are left out: distributions set them for all hosts. So are RequestTTY, SessionType,
CanonicalizeHostname and CanonicalizePermittedCNAMEs: `ssh -G` is asked with values of ours, and prints those.
"""

from __future__ import annotations

ON_ANY_HOP = (
    "ChannelTimeout",
    "ClearAllForwardings",
    "Compression",
    "ControlMaster",
    "ControlPersist",
    "DynamicForward",
    "EnableEscapeCommandline",
    "EscapeChar",
    "ExitOnForwardFailure",
    "ForkAfterAuthentication",
    "ForwardAgent",
    "ForwardX11",
    "ForwardX11Timeout",
    "ForwardX11Trusted",
    "GatewayPorts",
    "LocalCommand",
    "LocalForward",
    "ObscureKeystrokeTiming",
    "PermitLocalCommand",
    "PermitRemoteOpen",
    "RemoteCommand",
    "RemoteForward",
    "SetEnv",
    "StdinNull",
    "StreamLocalBindMask",
    "StreamLocalBindUnlink",
    "SyslogFacility",
    "Tunnel",
    "TunnelDevice",
    "VerifyHostKeyDNS",
    "VersionAddendum",
    "XAuthLocation",
)
# Where our own client logs in.
BY_OUR_CLIENT = (
    "EnableSSHKeysign",
    "GSSAPIClientIdentity",
    "GSSAPIDelegateCredentials",
    "GSSAPIKexAlgorithms",
    "GSSAPIKeyExchange",
    "GSSAPIRenewalForcesRekey",
    "GSSAPIServerIdentity",
    "GSSAPITrustDns",
    "HostbasedAcceptedAlgorithms",
    "HostbasedAuthentication",
    "LogVerbose",
    "PKCS11Provider",
    "SecurityKeyProvider",
)
# Where a hop is not reached by TCP from here.
BUT_BY_TCP = (
    "AddressFamily",
    "BindAddress",
    "BindInterface",
    "CanonicalDomains",
    "CanonicalizeFallbackLocal",
    "CanonicalizeMaxDots",
    "CheckHostIP",
    "ConnectionAttempts",
    "IPQoS",
    "NoHostAuthenticationForLocalhost",
    "TCPKeepAlive",
)
