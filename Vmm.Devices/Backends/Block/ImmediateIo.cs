using System.Diagnostics;
using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Block;

/// <summary>Does on the ring's own thread what does not wait for a disk: a read or write of the page cache takes less time than handing it
/// to anybody. Where the file system can say beforehand that it would wait, it is asked; where it cannot, what was slow before
/// decides: after one that took long, a ring does nothing itself for a multiple of that time.</summary>
internal sealed class ImmediateIo(BlockImage image)
{
    private const ulong MaxLength = 256 * 1024;
    private const ulong Page = 4096;
    private const int Misses = 32;          // reads not tried after one that was not in memory
    private const int Patience = 16;        // times as long as the slow one took

    // Longer than any copy takes, shorter than a disk with moving parts.
    private static readonly long s_slow = Stopwatch.Frequency / 1000;

    private bool _readsCanSay = true;
    private bool _writesCanSay = true;
    private int _skip;
    private long _resume = long.MinValue;

    /// <summary>Does the request's operation, if it is one that should not wait.</summary>
    /// <returns>False if it was not done.</returns>
    public bool TryExecute(BlockRequest request)
    {
        if (request.Operation > BlockOperation.Write || image.IsDirect || request.Remaining > MaxLength)
            return false;
        return request.Operation == BlockOperation.Read ? TryRead(request) : TryWrite(request);
    }

    private bool TryRead(BlockRequest request)
    {
        if (!_readsCanSay)
            return TryTimed(request);
        if (_skip > 0)
        {
            _skip--;
            return false;
        }
        long result = PositionedIo.Read(image.File!, request.Vectors, (long)request.Offset, noWait: true);
        if (result == -Errnos.Eagain)
            _skip = Misses;
        return IsDone(request, result, ref _readsCanSay);
    }

    private bool TryWrite(BlockRequest request)
    {
        // Half a page that is not in memory is read first.
        if (((request.Offset | request.Remaining) & (Page - 1)) != 0)
            return false;
        if (!_writesCanSay)
            return TryTimed(request);
        return IsDone(request, PositionedIo.Write(image.File!, request.Vectors, (long)request.Offset, noWait: true), ref _writesCanSay)
            || (!_writesCanSay && TryTimed(request));
    }

    private static bool IsDone(BlockRequest request, long result, ref bool canSay)
    {
        if (result == -Errnos.Eopnotsupp)
            canSay = false;
        if (result is -Errnos.Eagain or -Errnos.Eopnotsupp)
            return false;
        request.Result = result;
        return true;
    }

    private bool TryTimed(BlockRequest request)
    {
        long start = Stopwatch.GetTimestamp();
        if (start < _resume)
            return false;
        BlockEngine.Execute(image, request);
        long end = Stopwatch.GetTimestamp();
        if (end - start > s_slow)
            _resume = end + Patience * (end - start);
        return true;
    }
}
