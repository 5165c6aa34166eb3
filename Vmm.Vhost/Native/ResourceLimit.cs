using System.Runtime.InteropServices;

namespace Vmm.Vhost.Native;

/// <summary>A limit of this process (getrlimit(2)): what it may have, and how far it may raise that by itself.</summary>
public sealed partial class ResourceLimit
{
    private readonly int _resource;
    private ulong? _inherited;
    private ulong? _known;

    private ResourceLimit(int resource)
    {
        _resource = resource;
        _ = Current;
    }

    /// <summary>The number that stands for no limit.</summary>
    public const ulong Infinity = ulong.MaxValue;

    /// <summary>Processes and threads of this user (RLIMIT_NPROC; numbers of Linux asm-generic/resource.h).</summary>
    public static ResourceLimit Threads { get; } = new(6);

    /// <summary>One more than the highest number of a descriptor (RLIMIT_NOFILE).</summary>
    public static ResourceLimit OpenFiles { get; } = new(7);

    /// <summary>Bytes of memory that are locked in place (RLIMIT_MEMLOCK).</summary>
    public static ResourceLimit LockedMemory { get; } = new(8);

    /// <summary>Bytes of addresses that are in use (RLIMIT_AS).</summary>
    public static ResourceLimit Addresses { get; } = new(9);

    /// <summary>What counts now (the soft limit). A process that is confined may not ask the kernel any more: then it is what this process has seen or
    /// set last. Null where the kernel never said.</summary>
    public ulong? Current
    {
        get
        {
            if (GetLimit(_resource, out Rlimit limit) == 0)
                _known = limit.Current;
            return _known;
        }
    }

    /// <summary>How far this process may raise it (the hard limit); null where the kernel does not say.</summary>
    public ulong? Maximum => GetLimit(_resource, out Rlimit limit) == 0 ? limit.Maximum : null;

    /// <summary>What counted when this process began, as far as <see cref="Raise"/> has changed it: what programs expect that it starts.</summary>
    public ulong? Inherited => _inherited ?? Current;

    /// <summary>Sets what counts from now on.</summary>
    /// <param name="current">At most <see cref="Maximum"/>, unless that may be raised.</param>
    /// <param name="raisesMaximum">Whether the hard limit is raised, too, where it is lower: that needs privileges (CAP_SYS_RESOURCE).</param>
    /// <returns>Whether the kernel did it.</returns>
    public bool TrySet(ulong current, bool raisesMaximum = false)
    {
        if (GetLimit(_resource, out Rlimit limit) != 0)
            return false;
        limit.Current = current;
        if (raisesMaximum)
            limit.Maximum = Math.Max(limit.Maximum, current);
        if (SetLimit(_resource, in limit) != 0)
            return false;
        _known = current;
        return true;
    }

    /// <summary>Raises it as far as this process may: to the hard limit, or altogether where that is allowed.</summary>
    /// <param name="altogether">Whether no limit is wanted, which needs privileges.</param>
    public void Raise(bool altogether = false)
    {
        _inherited ??= Current;
        var unlimited = new Rlimit { Current = Infinity, Maximum = Infinity };
        if (altogether && SetLimit(_resource, in unlimited) == 0)
        {
            _known = Infinity;
            return;
        }
        if (Maximum is { } maximum)
            TrySet(maximum);
    }

    /// <summary>Gives a process that was started just now what counted when this one began; unless it has another limit than this one by now,
    /// which it has set for itself.</summary>
    internal unsafe void SetInherited(int process)
    {
        if (_inherited is not { } inherited || Current is not { } ours)
            return;
        // One that has ended already needs none.
        if (LimitOf(process, _resource, null, out Rlimit limit) != 0 || limit.Current != ours)
            return;
        limit.Current = inherited;
        _ = LimitOf(process, _resource, &limit, out _);
    }

    /// <summary>The limit as messages show it.</summary>
    public override string ToString() => Current switch
    {
        null => "unknown",
        Infinity => "unlimited",
        ulong number => $"{number}",
    };

    [LibraryImport("libc", EntryPoint = "setrlimit")]
    private static partial int SetLimit(int resource, in Rlimit limit);

    [LibraryImport("libc", EntryPoint = "getrlimit")]
    private static partial int GetLimit(int resource, out Rlimit limit);

    [LibraryImport("libc", EntryPoint = "prlimit")]
    private static unsafe partial int LimitOf(int process, int resource, Rlimit* limit, out Rlimit before);

    private struct Rlimit
    {
        public ulong Current;
        public ulong Maximum;
    }
}
