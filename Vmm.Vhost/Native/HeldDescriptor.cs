namespace Vmm.Vhost.Native;

/// <summary>A descriptor that stays open as long as this is not disposed (<see cref="FileDescriptor.Hold"/>).</summary>
public ref struct HeldDescriptor : IDisposable
{
    private FileDescriptor? _descriptor;

    internal HeldDescriptor(FileDescriptor descriptor)
    {
        bool isHeld = false;
        descriptor.DangerousAddRef(ref isHeld);
        _descriptor = descriptor;
        Number = (int)descriptor.DangerousGetHandle();
    }

    /// <summary>Its number.</summary>
    public readonly int Number { get; }

    /// <summary>Lets go of it. It is closed now if somebody has disposed of it meanwhile.</summary>
    public void Dispose()
    {
        FileDescriptor? descriptor = _descriptor;
        _descriptor = null;
        descriptor?.DangerousRelease();
    }
}
