using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.FileSystem;

/// <summary>Descriptors that were let go of under a lock, and are closed once it is free: close(2) of a file that was removed frees what it has on the disk, and close(2) of one that a server
/// keeps asks the server. Passed by reference.</summary>
internal struct ReleasedDescriptors
{
    private FileDescriptor? _first;
    private List<FileDescriptor>? _others;      // null for most: only one is let go of

    /// <summary>Adds one.</summary>
    public void Add(FileDescriptor descriptor)
    {
        if (_first is null)
            _first = descriptor;
        else
            (_others ??= []).Add(descriptor);
    }

    /// <summary>Closes all. The caller has no lock.</summary>
    public readonly void Close()
    {
        _first?.Dispose();
        if (_others is null)
            return;
        foreach (FileDescriptor descriptor in _others)
            descriptor.Dispose();
    }
}
