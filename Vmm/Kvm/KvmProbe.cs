using Vmm.Vhost.Native;

namespace Vmm.Kvm;

/// <summary>What <c>vmm check</c> asks of /dev/kvm.</summary>
internal interface IKvmProbe : IDisposable
{
    /// <summary>KVM_GET_API_VERSION: 12 on every kernel since 2.6.22 (Linux Documentation/virt/kvm/api.rst, 4.1).</summary>
    int ApiVersion { get; }

    /// <summary>KVM_CHECK_EXTENSION: 0 where there is no <paramref name="capability"/>, else 1 or its value (api.rst, 4.4).</summary>
    int Check(KvmCapability capability);
}

/// <summary>/dev/kvm, opened, whatever it can do.</summary>
internal class KvmProbe : IKvmProbe
{
    /// <summary>The only version there is.</summary>
    public const int RequiredApiVersion = 12;

    /// <summary>Opens the device at <paramref name="path"/>.</summary>
    /// <param name="path">/dev/kvm, or another for tests.</param>
    /// <param name="advice">What the user can do if that fails.</param>
    /// <exception cref="ErrnoException">It cannot be opened.</exception>
    public KvmProbe(string path, string? advice = null) => Device = FileDescriptor.Open(path, OpenMode.ReadWrite, advice);

    /// <inheritdoc/>
    public int ApiVersion => Ioctl.Call(Device, KvmIoctls.GetApiVersion);

    /// <summary>The device.</summary>
    protected FileDescriptor Device { get; }

    /// <inheritdoc/>
    public int Check(KvmCapability capability) => Ioctl.Call(Device, KvmIoctls.CheckExtension, (nuint)capability.Number);

    /// <inheritdoc/>
    public void Dispose()
    {
        Device.Dispose();
        GC.SuppressFinalize(this);
    }
}
