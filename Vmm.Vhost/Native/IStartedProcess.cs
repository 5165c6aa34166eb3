namespace Vmm.Vhost.Native;

/// <summary>A program that was started by this process, or for it.</summary>
public interface IStartedProcess : IDisposable
{
    /// <summary>Its process id.</summary>
    int Id { get; }

    /// <summary>What it writes to standard output and standard error, to be read without blocking.</summary>
    FileDescriptor Output { get; }

    /// <summary>Readable once it has ended.</summary>
    FileDescriptor Ended { get; }

    /// <summary>How it ended, in a few words ("status 1", "signal 9"); null while it runs.</summary>
    string? End { get; }

    /// <summary>Waits for its end.</summary>
    /// <returns>Whether it has ended within <paramref name="milliseconds"/>.</returns>
    bool WaitForEnd(int milliseconds);

    /// <summary>Kills it if it runs, and waits for its end. The kernel may hold up a process that waits for a disk or a server.</summary>
    /// <returns>Whether it has ended within <paramref name="milliseconds"/>.</returns>
    bool Kill(int milliseconds);
}
