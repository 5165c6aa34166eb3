namespace Vmm.Cli.Backend;

/// <summary>What <c>--print-capabilities</c> prints: VHostUserBackendCapabilities of QEMU's docs/interop/vhost-user.json.</summary>
internal static class BackendCapabilities
{
    /// <summary>The option.</summary>
    public const string Option = "--print-capabilities";

    /// <summary>The JSON for <paramref name="device"/>; null if there is no such device.</summary>
    public static string? Find(string device) => device switch
    {
        // The features are options that a management layer may use.
        "blk" => """{"type": "block", "features": ["read-only", "blk-file"]}""" + "\n",
        "fs" => """{"type": "fs", "features": ["migrate-precopy", "separate-options"]}""" + "\n",
        "net" or "rng" or "console" or "vsock" => $$"""{"type": "{{device}}"}""" + "\n",
        _ => null,
    };
}
