namespace Vmm.Vhost.User.Backend;

/// <summary>Marks the threads on which a device is called back. A call-back that ends its server must not wait for the end: the end waits for the
/// call-back.</summary>
internal static class ServingThread
{
    [ThreadStatic]
    private static VhostUserDevice? t_device;

    /// <summary>The calling thread calls <paramref name="device"/> back from now on.</summary>
    /// <returns>What <see cref="Leave"/> is to be given.</returns>
    public static VhostUserDevice? Enter(VhostUserDevice device)
    {
        VhostUserDevice? previous = t_device;
        t_device = device;
        return previous;
    }

    /// <summary>It does so no more.</summary>
    public static void Leave(VhostUserDevice? previous) => t_device = previous;

    /// <summary>Whether the calling thread is one that calls <paramref name="device"/> back.</summary>
    public static bool IsOf(VhostUserDevice device) => ReferenceEquals(t_device, device);
}
